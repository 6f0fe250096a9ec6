//! The rules by which pages are believed, against stores that break them.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::order::BARREN;
use super::*;
use crate::object::ETag;
use crate::reconcile::ranges::folder;

fn object(key: &str) -> ListedObject {
    ListedObject { key: key.to_owned(), size: 0, etag: ETag::new(""), modified_ms: 0 }
}

fn page(keys: &[&str], next: Option<&str>) -> ListPage {
    let objects = keys.iter().map(|key| object(key)).collect();
    ListPage { objects, prefixes: Vec::new(), next: next.map(str::to_owned) }
}

/// How a store departs from the rules.
#[derive(Debug, Clone, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a lie of its own")]
struct Lies {
    /// `start-after` includes the key itself.
    inclusive: bool,
    /// `start-after` is not looked at.
    ignores_start: bool,
    /// The last key of a page comes again as the first of the next.
    repeats: bool,
    /// Every page of this number says that it is the last.
    ends_early: usize,
    /// Every other page is empty.
    empty_pages: bool,
    /// MinIO's way of counting keys before `start-after` that are in a folder behind it.
    counts_others: bool,
    /// The listing takes it for a store that reads ahead.
    reads_ahead: bool,
}

impl Lies {
    /// How many keys before `from` such a store looks at, below a prefix.
    fn others(&self, keys: &BTreeSet<String>, prefix: &str, from: &str) -> usize {
        let base = folder(prefix);
        let Some((name, _)) = from.strip_prefix(base).and_then(|rest| rest.split_once('/')) else {
            return 0;
        };
        let other = |key: &&String| {
            let rest = key.strip_prefix(base).filter(|_| key.starts_with(prefix));
            let first = rest.and_then(|rest| rest.split('/').next());
            key.as_str() <= from && first.is_some_and(|first| first > name)
        };
        if self.counts_others { keys.iter().filter(other).count() } else { 0 }
    }
}

/// Lists `range` from a store that lies, as `Listing` would; one that ignores `start-after` from the
/// beginning.
fn list(
    keys: &BTreeSet<String>,
    range: KeyRange,
    size: usize,
    lies: &Lies,
) -> Result<Vec<String>, Fault> {
    let mut place = Some(PageStart::After(range.start.clone().filter(|_| !lies.ignores_start)));
    let mut bounds = Bounds::new(askable(range.common_prefix()).into());
    let mut order = Order::over(range);
    let (mut found, mut pages) = (Vec::new(), 0);
    while let Some(asked) = place {
        pages += 1;
        assert!(pages < 10_000, "it never ends");
        let prefix = Arc::clone(bounds.prefix());
        if let PageStart::Only(key) = &asked {
            let own: Vec<_> = keys.get(key).map(String::as_str).into_iter().collect();
            let step = order.accept(&asked, page(&own, None))?;
            place = bounds.next(&asked, &step, &order, lies.reads_ahead);
            found.extend(step.objects.into_iter().map(|object| object.key));
            continue;
        }
        let (from, skip) = match &asked {
            PageStart::After(_) | PageStart::Only(_) if lies.ignores_start => (None, false),
            PageStart::After(key) => (key.clone(), !lies.inclusive),
            PageStart::Only(key) => (Some(key.clone()), true),
            PageStart::Token(token) => {
                (token.split_once(':').map(|(_, key)| key.to_owned()), !lies.repeats)
            }
        };
        let empty = lies.empty_pages && pages % 2 == 0;
        let behind = |key: &&String| {
            key.starts_with(&*prefix)
                && from.as_ref().is_none_or(|from| *key > from || (!skip && *key == from))
        };
        let mut rest = keys.iter().filter(behind).map(String::as_str).peekable();
        let others = match (&asked, &from) {
            (PageStart::After(_), Some(from)) => lies.others(keys, &prefix, from),
            _ => 0,
        };
        let room = if empty { 0 } else { size.saturating_sub(others) };
        let given: Vec<_> = rest.by_ref().take(room).collect();
        let lie = lies.ends_early > 0 && pages % lies.ends_early == 0 && !given.is_empty();
        let at = given.last().map(|key| (*key).to_owned()).or(from.clone()).unwrap_or_default();
        let goes_on = rest.peek().is_some() && !lie && (others == 0 || empty);
        let next = goes_on.then(|| format!("{pages}:{at}"));
        let step = order.accept(&asked, page(&given, next.as_deref()))?;
        place = bounds.next(&asked, &step, &order, lies.reads_ahead);
        found.extend(step.objects.into_iter().map(|object| object.key));
    }
    Ok(found)
}

fn lies() -> impl Strategy<Value = Lies> {
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), 0_usize..4, any::<[bool; 3]>());
    flags.prop_map(|(inclusive, ignores_start, repeats, ends_early, others)| {
        let [empty_pages, counts_others, reads_ahead] = others;
        // A store that ignores `start-after` and ends early cannot be listed at all.
        let ends_early = if ignores_start { 0 } else { ends_early };
        let counts_others = counts_others && !ignores_start;
        Lies {
            inclusive,
            ignores_start,
            repeats,
            ends_early,
            empty_pages,
            counts_others,
            reads_ahead,
        }
    })
}

proptest! {
    #[test]
    fn every_key_of_a_range_is_listed_once_whatever_the_store_says(
        keys in prop::collection::btree_set("[ab/é0-]{1,4}", 0..60),
        start in prop::option::of("[ab/-]{1,3}"), end in prop::option::of("[ab/0]{1,3}"),
        size in 2_usize..9, lies in lies(),
    ) {
        let range = KeyRange { start, end };
        let wanted: Vec<_> = keys.iter().filter(|key| range.contains(key)).cloned().collect();
        prop_assert_eq!(list(&keys, range, size, &lies).unwrap(), wanted);
    }
}

#[test]
fn a_listing_out_of_order_is_an_error_that_names_the_keys() {
    let mut order = Order::over(KeyRange::ALL);
    let first = PageStart::After(None);
    let fault = order.accept(&first, page(&["a", "c", "b"], None)).unwrap_err();
    assert_eq!(fault, Fault::Order { previous: "c".to_owned(), key: "b".to_owned() });
    let fault = order.accept(&first, page(&["a", "a"], None)).unwrap_err();
    assert_eq!(fault, Fault::Order { previous: "a".to_owned(), key: "a".to_owned() });
    order.accept(&first, page(&["a", "m"], Some("t"))).unwrap();
    let token = PageStart::Token("t".to_owned());
    let fault = order.accept(&token, page(&["b", "z"], None)).unwrap_err();
    assert_eq!(fault, Fault::Order { previous: "m".to_owned(), key: "b".to_owned() });
}

#[test]
fn a_page_that_leads_to_itself_is_an_error() {
    let mut order = Order::over(KeyRange::ALL);
    let token = PageStart::Token("t".to_owned());
    assert_eq!(order.accept(&token, page(&[], Some("t"))).unwrap_err(), Fault::Circle);
}

#[test]
fn pages_that_lead_on_and_on_to_no_new_key_are_an_error() {
    let mut order = Order::over(KeyRange { start: Some("k".to_owned()), end: None });
    let mut accept = |number: u32| {
        let asked = PageStart::Token(number.to_string());
        order.accept(&asked, page(&["k"], Some(&(number + 1).to_string()))).map(drop)
    };
    assert!((0..BARREN).all(|number| accept(number).is_ok()), "a store may skip much");
    assert_eq!(accept(BARREN).unwrap_err(), Fault::Circle);
}

#[test]
fn nothing_is_asked_behind_the_end_of_a_range() {
    let mut order = Order::over(KeyRange { start: None, end: Some("b".to_owned()) });
    let step = order.accept(&PageStart::After(None), page(&["a", "b", "c"], Some("t"))).unwrap();
    let next = Bounds::new("".into()).next(&PageStart::After(None), &step, &order, true);
    assert_eq!((step.objects.len(), next), (2, None));
}

#[test]
fn a_store_that_ignores_start_after_is_told_apart_before_anything_is_given_out() {
    let over = || Order::over(KeyRange { start: Some("m".to_owned()), end: None });
    let asked = PageStart::After(Some("m".to_owned()));
    let fault = over().accept(&asked, page(&["a", "z"], None)).unwrap_err();
    assert_eq!(fault, Fault::Start { key: "a".to_owned() });
    // To include the key itself is another fault, which costs nothing.
    let mut order = over();
    assert_eq!(order.accept(&asked, page(&["m", "z"], None)).unwrap().objects.len(), 1);
    // At the end, when only a doubtful last page is asked for again, what is known is dropped.
    let asked = PageStart::After(Some("z".to_owned()));
    assert!(!order.accept(&asked, page(&["a", "m", "z"], None)).unwrap().found);
}
