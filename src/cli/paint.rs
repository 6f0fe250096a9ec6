//! Colours, on a terminal only.

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
