//! Text for a terminal: colours where it is one, and nothing that moves its cursor.

/// Paints text, or leaves it as it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Paint(bool);

impl Paint {
    /// With colours if the output is a terminal, unless `NO_COLOR` is set (<https://no-color.org>).
    pub(super) fn on(terminal: bool) -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self(terminal && !refused)
    }

    pub(super) fn green(self, text: &str) -> String {
        self.paint(text, "32")
    }

    pub(super) fn yellow(self, text: &str) -> String {
        self.paint(text, "33")
    }

    pub(super) fn red(self, text: &str) -> String {
        self.paint(text, "31")
    }

    pub(super) fn bold(self, text: &str) -> String {
        self.paint(text, "1")
    }

    fn paint(self, text: &str, code: &str) -> String {
        if self.0 { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// What others wrote, with control characters spelled out.
pub(super) fn plain(text: &str) -> String {
    let spelled = |c: char| if c.is_control() { c.escape_debug().to_string() } else { c.into() };
    text.chars().map(spelled).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_colour_and_no_control_character_reaches_a_pipe() {
        assert_eq!(Paint(false).red("text"), "text");
        assert_eq!(plain("é\u{1b}[2J\n"), "é\\u{1b}[2J\\n");
    }
}
