//! Which of the names that there are a person probably meant. Pure.

/// The one of `names` that was probably meant by `word`, if any is near enough.
pub(super) fn nearest<N: AsRef<str>>(word: &str, names: impl IntoIterator<Item = N>) -> Option<N> {
    let word = word.to_ascii_lowercase().replace('-', "_");
    names
        .into_iter()
        .map(|name| {
            let candidate = name.as_ref().to_ascii_lowercase();
            let likeness = strsim::normalized_damerau_levenshtein(&word, &candidate);
            let begun = word.len() >= 3 && candidate.starts_with(&word);
            (if begun { likeness.max(0.6 + likeness / 10.0) } else { likeness }, name)
        })
        .filter(|(likeness, _)| *likeness >= 0.6)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::schema::names_in;

    #[test]
    fn a_name_that_is_far_from_all_others_has_no_nearest() {
        assert_eq!(nearest("acess_key", names_in("source")), Some("access_key"));
        assert_eq!(nearest("path-style", names_in("source")), Some("path_style"));
        assert_eq!(nearest("acces", names_in("source")), Some("access_key"));
        assert_eq!(nearest("zzz", names_in("source")), None);
    }
}
