//! The `evermirror` command.

fn main() {}
