//! Where the key space is cut before the sizes of its parts are known.

use super::PassOptions;
use crate::reconcile::list::Side;
use crate::reconcile::ranges::{folder, thin};
use crate::store::{ListQuery, StoreError};

/// Where an earlier pass advised to cut.
pub(super) fn remembered(options: &PassOptions, reads_ahead: bool) -> Vec<String> {
    let inside = |point: &String| point.starts_with(&*options.prefix) && can_begin(point);
    let mut points: Vec<_> = options.split_points.iter().filter(|p| inside(p)).cloned().collect();
    let worth = points.len() / PAGES_PER_RANGE;
    if reads_ahead {
        points = points.windows(2).filter_map(into_a_folder).collect();
    }
    thin(points, wanted(options).min(worth))
}

/// The folders of the first level that has more than one.
pub(super) async fn folders(
    options: &PassOptions,
    source: &Side,
) -> Result<Vec<String>, StoreError> {
    let mut level = source.clone();
    for _ in 0..LEVELS {
        let query = ListQuery { delimiter: Some("/"), ..ListQuery::default() };
        let page = level.page(query).await?;
        match page.prefixes.as_slice() {
            [only] if page.objects.is_empty() && only.len() > level.prefix.len() => {
                level.prefix = only.as_str().into();
            }
            _ => {
                let mut points = page.prefixes;
                points.retain(|point| can_begin(point));
                points.sort_unstable();
                return Ok(thin(points, wanted(options)));
            }
        }
    }
    Ok(Vec::new())
}

fn wanted(options: &PassOptions) -> usize {
    (options.parallel.get() * RANGES_PER_WORKER).saturating_sub(1)
}

/// The second of two keys, if it is in another folder than the first.
fn into_a_folder(keys: &[String]) -> Option<String> {
    let [before, key] = keys else { return None };
    (folder(before) != folder(key)).then(|| key.clone())
}

/// Whether every store can be asked what comes behind this: MinIO refuses `.` and `..` between slashes.
pub(super) fn can_begin(point: &str) -> bool {
    !point.split('/').any(|part| matches!(part, "." | ".."))
}

/// Few, because every listing that is begun costs a page or two; idle workers cut the ranges that turn
/// out long.
const RANGES_PER_WORKER: usize = 2;
/// So deep the first folders to cut at are looked for.
const LEVELS: usize = 8;
/// Each end of a range costs half a page that is thrown away.
const PAGES_PER_RANGE: usize = 6;
