//! Detects whether a descriptor is connected to systemd's journal (systemd.exec(5), `$JOURNAL_STREAM`).

/// Whether `variable`, the value of JOURNAL_STREAM, names the file with this device and inode number. The presence of
/// the variable alone means nothing, because a program that redirects the stream does not change it.
pub(crate) fn names(variable: &[u8], device: u64, inode: u64) -> bool {
    let number = |text: &[u8]| {
        let digits = std::str::from_utf8(text).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
        digits.and_then(|digits| digits.parse::<u64>().ok())
    };
    let mut parts = variable.splitn(2, |&b| b == b':').map(number);
    (parts.next().flatten(), parts.next().flatten()) == (Some(device), Some(inode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_named_file_is_the_journal() {
        for (variable, named) in [
            (&b"9:4711"[..], true),
            (b"9:4712", false),
            (b"8:4711", false),
            (b"", false),
            (b"9", false),
            (b"9:", false),
            (b":4711", false),
            (b"9:4711:", false),
            (b"9:4711\n", false),
            (b" 9:4711", false),
            (b"+9:4711", false),
            (b"9:99999999999999999999999", false),
            (b"\xff:4711", false),
        ] {
            assert_eq!(names(variable, 9, 4711), named, "{variable:?}");
        }
        assert!(names(b"18446744073709551615:0", u64::MAX, 0));
    }
}
