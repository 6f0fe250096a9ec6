//! The rules by which pages are believed, against stores that break them.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::object::ETag;

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
}

/// Lists `range` from a store that lies, as `Listing` would; one that ignores `start-after` from the
/// beginning.
fn list(
    keys: &BTreeSet<String>,
    range: KeyRange,
    size: usize,
    lies: &Lies,
) -> Result<Vec<String>, Fault> {
    let mut place = Some(Place::After(range.start.clone().filter(|_| !lies.ignores_start)));
    let mut order = Order::over(range);
    let (mut found, mut pages) = (Vec::new(), 0);
    while let Some(asked) = place {
        pages += 1;
        assert!(pages < 10_000, "it never ends");
        let (from, skip) = match &asked {
            Place::After(_) if lies.ignores_start => (None, false),
            Place::After(key) => (key.clone(), !lies.inclusive),
            Place::Token(token) => {
                (token.split_once(':').map(|(_, key)| key.to_owned()), !lies.repeats)
            }
        };
        let empty = lies.empty_pages && pages % 2 == 0;
        let behind =
            |key: &&String| from.as_ref().is_none_or(|from| *key > from || (!skip && *key == from));
        let mut rest = keys.iter().filter(behind).map(String::as_str).peekable();
        let given: Vec<_> = rest.by_ref().take(if empty { 0 } else { size }).collect();
        let lie = lies.ends_early > 0 && pages % lies.ends_early == 0 && !given.is_empty();
        let at = given.last().map(|key| (*key).to_owned()).or(from.clone()).unwrap_or_default();
        let next = (rest.peek().is_some() && !lie).then(|| format!("{pages}:{at}"));
        let step = order.accept(&asked, page(&given, next.as_deref()))?;
        found.extend(step.objects.into_iter().map(|object| object.key));
        place = step.next;
    }
    Ok(found)
}

fn lies() -> impl Strategy<Value = Lies> {
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), 0_usize..4, any::<bool>());
    flags.prop_map(|(inclusive, ignores_start, repeats, ends_early, empty_pages)| {
        // A store that ignores `start-after` and ends early cannot be listed at all.
        let ends_early = if ignores_start { 0 } else { ends_early };
        Lies { inclusive, ignores_start, repeats, ends_early, empty_pages }
    })
}

proptest! {
    #[test]
    fn every_key_of_a_range_is_listed_once_whatever_the_store_says(
        keys in prop::collection::btree_set("[ab/é]{1,4}", 0..60),
        start in prop::option::of("[ab/]{1,3}"), end in prop::option::of("[ab/]{1,3}"),
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
    let first = Place::After(None);
    let fault = order.accept(&first, page(&["a", "c", "b"], None)).unwrap_err();
    assert_eq!(fault, Fault::Order { previous: "c".to_owned(), key: "b".to_owned() });
    let fault = order.accept(&first, page(&["a", "a"], None)).unwrap_err();
    assert_eq!(fault, Fault::Order { previous: "a".to_owned(), key: "a".to_owned() });
    order.accept(&first, page(&["a", "m"], Some("t"))).unwrap();
    let token = Place::Token("t".to_owned());
    let fault = order.accept(&token, page(&["b", "z"], None)).unwrap_err();
    assert_eq!(fault, Fault::Order { previous: "m".to_owned(), key: "b".to_owned() });
}

#[test]
fn a_page_that_leads_to_itself_is_an_error() {
    let mut order = Order::over(KeyRange::ALL);
    let token = Place::Token("t".to_owned());
    assert_eq!(order.accept(&token, page(&[], Some("t"))).unwrap_err(), Fault::Circle);
}

#[test]
fn pages_that_lead_on_and_on_to_no_new_key_are_an_error() {
    let mut order = Order::over(KeyRange { start: Some("k".to_owned()), end: None });
    let mut accept = |number: u32| {
        let asked = Place::Token(number.to_string());
        order.accept(&asked, page(&["k"], Some(&(number + 1).to_string()))).map(drop)
    };
    assert!((0..BARREN).all(|number| accept(number).is_ok()), "a store may skip much");
    assert_eq!(accept(BARREN).unwrap_err(), Fault::Circle);
}

#[test]
fn nothing_is_asked_behind_the_end_of_a_range() {
    let mut order = Order::over(KeyRange { start: None, end: Some("b".to_owned()) });
    let step = order.accept(&Place::After(None), page(&["a", "b", "c"], Some("t"))).unwrap();
    assert_eq!((step.objects.len(), step.next), (2, None));
}

#[test]
fn a_store_that_ignores_start_after_is_told_apart_before_anything_is_given_out() {
    let over = || Order::over(KeyRange { start: Some("m".to_owned()), end: None });
    let asked = Place::After(Some("m".to_owned()));
    let fault = over().accept(&asked, page(&["a", "z"], None)).unwrap_err();
    assert_eq!(fault, Fault::Start { key: "a".to_owned() });
    // To include the key itself is another fault, which costs nothing.
    let mut order = over();
    assert_eq!(order.accept(&asked, page(&["m", "z"], None)).unwrap().objects.len(), 1);
    // At the end, when only a doubtful last page is asked for again, what is known is dropped.
    let asked = Place::After(Some("z".to_owned()));
    assert!(!order.accept(&asked, page(&["a", "m", "z"], None)).unwrap().found);
}

#[test]
fn a_group_is_what_a_key_and_its_neighbours_begin_with_and_the_end_does_not() {
    assert_eq!(group("t/part-01999", "t/part-03000"), Some("t/part-01"));
    assert_eq!(group("t=09/x", "t=10/"), Some("t=0"));
    assert_eq!(group("ż1", "ż2"), Some("ż1"));
    assert_eq!(group("a", "ab"), None);
    let prefixes = [".", "a/..", "a/...", ".a", "a./", ""].map(askable);
    assert_eq!(prefixes, ["", "a/", "a/...", ".a", "a./", ""]);
}
