//! Every kind of mistake, and the exact words that answer it.

use super::{LEAST, error_of};

const MISTAKES: &str = include_str!("mistakes.golden");

#[test]
fn every_mistake_is_answered_with_its_place_and_its_remedy() {
    let blocks: Vec<&str> = MISTAKES.split("\n\n").skip(1).collect();
    assert!(blocks.len() > 50, "the golden file was not split into its blocks");
    for block in blocks {
        let (mistake, answer) = block.split_once("=>\n").unwrap();
        let (correct, wrong) = mistake.strip_prefix("> ").unwrap().split_once('\n').unwrap();
        let correct = format!("{correct}\n");
        assert!(LEAST.contains(&correct), "{block}");
        let answered = error_of(&LEAST.replacen(&correct, wrong, 1), &[]);
        assert_eq!(answered, answer.trim_end(), "\n{block}");
    }
}

#[test]
fn without_anything_all_that_is_missing_is_listed_at_once() {
    let error = crate::config::load(None, std::iter::empty()).unwrap_err().to_string();
    let variables =
        ["DATA_DIR", "SOURCE__ENDPOINT", "TARGET__ENDPOINT", "BUCKETS", "INTAKE__WEBHOOK__LISTEN"];
    assert_eq!(error.lines().count(), variables.len(), "{error}");
    for (line, variable) in error.lines().zip(variables) {
        assert!(line.starts_with("error: "), "{line}");
        assert!(line.contains(&format!("set EVERMIRROR__{variable}")), "{line}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_an_error_that_names_it() {
    let path = std::path::Path::new("/does/not/exist.toml");
    let error = crate::config::load(Some(path), std::iter::empty()).unwrap_err().to_string();
    assert!(error.starts_with("error: /does/not/exist.toml: cannot read this file: "), "{error}");
}
