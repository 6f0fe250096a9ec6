//! Object keys that break careless software.

use std::collections::BTreeSet;

/// Written out where a key has a story; the rest is generated below.
#[rustfmt::skip]
const STORIES: [&str; 67] = [
    // Three keys that become one when `+` or `%` is decoded once too often or too rarely.
    "a b",
    "a+b",
    "a%20b",
    "a%2Bb",
    "a%2520b",
    "a%252Bb",
    "100%",
    "50%25",
    "%",
    "%%",
    "%zz",
    "%2",
    // Separators that are data.
    "folder%2Ffile",
    "a%2fb",
    "q?x=1&y=2",
    "frag#ment",
    "semi;colon",
    "a=b",
    "a&amp;b",
    "?",
    "#",
    "&",
    // What a path cleaner would eat.
    ".hidden",
    "trailing.",
    "...",
    "a/.../b",
    "..a",
    "a..",
    "./a",
    "../a",
    "a/./b",
    "a/../b",
    ".",
    "..",
    "//a",
    "a//b",
    "a///b",
    "a//",
    "/",
    "/leading",
    "dir/",
    "dir/sub/",
    "dir/sub/file",
    "dir",
    // XML, JSON, shell and SQL.
    "<key>&amp;\"'</key>",
    "]]>",
    "<!--",
    "{\"k\":[1,2]}",
    "$(reboot)",
    "`id`",
    "'; DROP TABLE o; --",
    "back\\slash",
    "\\",
    "C:\\temp\\x",
    "\"quoted\"",
    "'single'",
    "*.parquet",
    "a|b",
    "a>b<c",
    "~",
    "^",
    // The names of S3's own sub-resources.
    "a?tagging",
    "a?versionId=null",
    "uploads",
    "tagging",
    "x-amz-meta-a",
    "soap",
];

/// Letters and signs from beyond ASCII, some in pairs that look alike.
#[rustfmt::skip]
const UNICODE: [&str; 28] = [
    "caf\u{e9}",
    "cafe\u{301}",
    "\u{c5}ngstr\u{f6}m",
    "A\u{30a}ngstro\u{308}m",
    "\u{212b}",
    "stra\u{df}e",
    "STRASSE",
    "\u{130}stanbul",
    "\u{3b1}\u{3b2}\u{3b3}",
    "\u{4f60}\u{597d}/\u{4e16}",
    "\u{65e5}\u{672c}\u{8a9e}",
    "\u{d55c}\u{ad6d}",
    "\u{1112}\u{1161}\u{11ab}",
    "\u{1f600}",
    "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}",
    "\u{1f1e9}\u{1f1ea}",
    "\u{5e9}\u{5dc}\u{5d5}\u{5dd}",
    "\u{627}\u{644}/\u{202e}gpj.exe",
    "zero\u{200b}width",
    "nb\u{a0}space",
    "\u{feff}bom",
    "line\u{2028}sep",
    "para\u{2029}sep",
    "next\u{85}line",
    "c1\u{80}\u{9f}",
    "\u{fffd}",
    "\u{10ffff}",
    "\u{ff0f}fullwidth\u{ff0e}\u{ff0e}",
];

/// Objects below another object, or in a folder named `...`: RustFS lists them, MinIO has them and does not
/// list them.
pub(crate) const UNLISTED_BY_MINIO: [&str; 4] = ["a/.../b", "case/A", "dir/sub/", "dir/sub/file"];

/// More than 200 keys, all different. Whether a store takes one is for the store to say: on its disks
/// MinIO refuses `.` and `..` as components, `//` and components over 255 bytes, strips leading slashes,
/// and leaves objects out of its listings that lie below another object (`dir/sub/file` under `dir`).
pub(crate) fn keys() -> Vec<String> {
    let mut keys: Vec<String> = STORIES.iter().chain(&UNICODE).map(|&key| key.to_owned()).collect();
    // Every ASCII sign, inside a name, and every control character with DEL.
    keys.extend(
        (b' '..=b'~')
            .filter(|c| !c.is_ascii_alphanumeric())
            .map(|c| format!("sign-{c:02x}-a{}b", char::from(c))),
    );
    keys.extend(
        (1..0x20).chain([0x7f]).map(|c: u8| format!("control-{c:02x}-a{}b", char::from(c))),
    );
    // The same signs as their own escapes: each becomes the key above if it is decoded once too often.
    keys.extend(
        (b' '..=b'~')
            .filter(|c| !c.is_ascii_alphanumeric())
            .map(|c| format!("sign-{c:02x}-a%{c:02X}b")),
    );
    // At the ends, where trimming happens.
    for edge in [" ", "\t", "\n", "+", "%20", "\u{a0}", ".", "~", "-", "_"] {
        keys.push(format!("{edge}at-the-front"));
        keys.push(format!("at-the-end{edge}"));
        keys.push(format!("dir{edge}/at-the-end-of-a-folder"));
    }
    // Differ in case only.
    keys.extend(["Case", "case", "CASE", "case/A", "case2/a", "CASE2/a"].map(str::to_owned));
    // Around the lengths at which something ends: a name of 255 bytes on a disk, a key of 1,024.
    keys.extend([254, 255, 256].map(|length| "n".repeat(length)));
    keys.extend([1023, 1024].map(|length| long(length, "abcdefghi/")));
    keys.extend([1022, 1024].map(|length| long(length, "\u{e4}\u{f6}/")));
    keys.push(long(1024, "\u{1f600}/"));
    keys.push(long(1023, "d/"));
    keys.push(long(1024, "d/"));
    keys.push(long(768, "% +/"));
    keys
}

/// `unit` repeated up to exactly `length` bytes, with `x` where a whole unit no longer fits.
fn long(length: usize, unit: &str) -> String {
    let mut key = unit.repeat(length / unit.len());
    key.extend(std::iter::repeat_n('x', length - key.len()));
    key
}

#[test]
fn the_table_has_no_key_twice() {
    let keys = keys();
    assert!(keys.len() >= 200, "only {} keys", keys.len());
    assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), keys.len());
    assert!(keys.iter().all(|key| (1..=1024).contains(&key.len())));
}
