//! Which buckets of the source are half restored. `run` and `sync` hold their deletes: an object that is
//! not back yet is nowhere but at the target, and looks there as if the source had deleted it.
//!
//! **Promise.** From before the first object is written until a restore has ended with everything there,
//! its buckets are named, also after a crash and whatever other restore was run since. State that
//! cannot be read names every bucket.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::state::{State, StateFile};
use super::way;
use crate::config::Settings;

/// The configured source buckets into which a restore is not finished, each with what a person is told;
/// tells the log, too.
pub(crate) fn unfinished(settings: &Settings) -> BTreeMap<Arc<str>, Arc<str>> {
    let file = StateFile::at(&way::state_dir(settings));
    let path = file.path().display();
    let (buckets, reason) = match file.read() {
        Ok(None) => return BTreeMap::new(),
        Ok(Some(state)) => (half_restored(settings, &state), not_finished(file.path())),
        Err(error) => (
            settings.buckets.iter().map(|bucket| bucket.source.as_str()).collect(),
            format!(
                "{path} cannot be read ({error}), so a restore into this bucket may not be finished; \
                 mend or remove the file, or approve"
            ),
        ),
    };
    if !buckets.is_empty() {
        tracing::warn!(
            ?buckets,
            reason,
            "A restore into the source is not finished. What it has not brought back yet may be at the target only: \
             deletes of these buckets are held."
        );
    }
    let reason: Arc<str> = reason.into();
    buckets.into_iter().map(|bucket| (bucket.into(), Arc::clone(&reason))).collect()
}

/// The configured source buckets that an unfinished restore writes into.
fn half_restored<'a>(settings: &'a Settings, state: &State) -> Vec<&'a str> {
    let of_source =
        state.requests().filter(|asked| way::same_store(&asked.to, &settings.source.endpoint));
    let into: Vec<_> = of_source.flat_map(|asked| &asked.buckets).map(|(_, into)| into).collect();
    let sources = settings.buckets.iter().map(|bucket| &bucket.source);
    sources.filter(|source| into.contains(source)).map(String::as_str).collect()
}

fn not_finished(path: &Path) -> String {
    format!(
        "a restore into this bucket is not finished ({}): end it with `evermirror restore`; \
         if it was given up, remove that file, or approve",
        path.display()
    )
}

#[cfg(test)]
mod tests {
    use super::super::state::Request;
    use super::*;

    fn settings(data_dir: &Path) -> Settings {
        toml::from_str(&format!(
            "data_dir = '{}'\n[source]\nendpoint = 'http://s:1'\n[target]\nendpoint = 'http://t:2'\n\
             [[buckets]]\nsource = 'a'\ntarget = 'a-copy'\n[[buckets]]\nsource = 'b'\n[[buckets]]\nsource = 'c'",
            data_dir.display()
        ))
        .unwrap()
    }

    fn request(to: &str, buckets: &[(&str, &str)]) -> Request {
        let name = |(from, into): &(&str, &str)| ((*from).to_owned(), (*into).to_owned());
        Request {
            from: "http://t:2".into(),
            to: to.into(),
            buckets: buckets.iter().map(name).collect(),
            prefix: String::new(),
            at: None,
        }
    }

    #[test]
    fn the_buckets_of_every_unfinished_restore_into_the_source_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let settings = settings(dir.path());
        let named = || unfinished(&settings).into_keys().map(|k| k.to_string()).collect::<Vec<_>>();
        assert_eq!(named(), [""; 0]);
        let file = StateFile::take(&way::state_dir(&settings)).unwrap();
        let elsewhere = request("http://drill:1", &[("a-copy", "a"), ("b", "b")]);
        file.save(&State::new(elsewhere.clone(), None, Vec::new())).unwrap();
        assert_eq!(named(), [""; 0], "a drill is no danger");

        // Of the bucket's two names, the one at the destination counts; spelling does not.
        let back = request("HTTP://s:1/", &[("a-copy", "a"), ("b", "b-drill"), ("x", "c")]);
        let (_, others) = file.load(&back).unwrap();
        file.save(&State::new(back, None, others)).unwrap();
        assert_eq!(named(), ["a", "c"]);
        // A drill begun since then, and ended, changes nothing of that.
        let (earlier, others) = file.load(&elsewhere).unwrap();
        assert!(earlier.is_some());
        let drill = State::new(elsewhere, None, others);
        file.save(&drill).unwrap();
        assert_eq!(named(), ["a", "c"]);
        file.finish(drill).unwrap();
        assert_eq!(named(), ["a", "c"]);
        let reason = unfinished(&settings).remove("a").unwrap();
        assert!(reason.contains("restore/progress.json") && reason.contains("approve"), "{reason}");

        std::fs::write(file.path(), "{").unwrap();
        assert_eq!(named(), ["a", "b", "c"], "what cannot be read may be anything");
    }
}
