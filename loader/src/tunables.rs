//! The syntax of `GLIBC_TUNABLES`: `name=value` items separated by `:`, and numbers in it, read as ld.so of glibc does.
//!
//! Pure: no allocation, no system call, no failure. What glibc ignores is ignored here.

#![deny(unsafe_code)]

/// The `name=value` items of a `GLIBC_TUNABLES` string, in order.
///
/// A name ends at the first `=`; a value ends at `:` and may hold further `=`. Text without `=` before the next `:` is
/// skipped; without `=` before the end of the string it is dropped. Names and values may be empty, and names may
/// come more than once.
pub fn items(string: &[u8]) -> Items<'_> {
    Items { rest: Some(string) }
}

/// Iterator of [`items`].
#[derive(Clone, Debug)]
pub struct Items<'a> {
    rest: Option<&'a [u8]>,
}

impl<'a> Iterator for Items<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (item, rest) = split(self.rest.take()?, b':');
            self.rest = rest;
            if let (name, Some(value)) = split(item, b'=') {
                return Some((name, value));
            }
        }
    }
}

/// What is before the first `separator`, and what is after it if there is one.
fn split(text: &[u8], separator: u8) -> (&[u8], Option<&[u8]>) {
    let mut parts = text.splitn(2, |&byte| byte == separator);
    (parts.next().unwrap_or_default(), parts.next())
}

/// The number a tunable's value stands for.
///
/// Blanks and tabs, one sign, then digits: hexadecimal after `0x`, octal after `0`, else decimal. What follows the
/// digits is ignored, and no digits at all are 0. A negative number wraps around; a number that needs more than 64 bits
/// is `u64::MAX` whatever its sign (as are, in glibc and so here, the few just below 2^64 that its overflow check refuses).
pub fn parse_number(value: &[u8]) -> u64 {
    let blanks = value.iter().take_while(|&&byte| byte == b' ' || byte == b'\t').count();
    let (negative, digits) = match value.get(blanks..).unwrap_or_default() {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    let (base, digits) = match digits {
        [b'0', b'x' | b'X', digits @ ..] => (16, digits),
        [b'0', ..] => (8, digits),
        _ => (10, digits),
    };
    let mut number = 0u64;
    for digit in digits.iter().map_while(|&byte| char::from(byte).to_digit(base)) {
        let (base, digit) = (u64::from(base), u64::from(digit));
        if number >= (u64::MAX - digit) / base {
            return u64::MAX;
        }
        number = number.wrapping_mul(base).wrapping_add(digit);
    }
    if negative {
        number.wrapping_neg()
    } else {
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn parsed(string: &str) -> Vec<(&str, &str)> {
        let text = |bytes| core::str::from_utf8(bytes).expect("split at ASCII bytes");
        items(string.as_bytes()).map(|(name, value)| (text(name), text(value))).collect()
    }

    #[test]
    fn items_are_separated_by_colons() {
        assert_eq!(parsed("a=1:b=2"), [("a", "1"), ("b", "2")]);
        assert_eq!(parsed("a=1:a=2"), [("a", "1"), ("a", "2")]);
        assert_eq!(parsed(":a=1::b=2:"), [("a", "1"), ("b", "2")]);
    }

    #[test]
    fn values_may_hold_equal_signs_and_may_be_empty() {
        assert_eq!(parsed("a=b=c:d="), [("a", "b=c"), ("d", "")]);
        assert_eq!(parsed("=1"), [("", "1")]);
    }

    #[test]
    fn text_without_an_equal_sign_is_no_item() {
        assert_eq!(parsed(""), []);
        assert_eq!(parsed("a"), []);
        assert_eq!(parsed("a:b=1"), [("b", "1")]);
        assert_eq!(parsed("b=1:a"), [("b", "1")]);
        assert_eq!(parsed(":::"), []);
    }

    #[test]
    fn numbers_of_every_form() {
        let cases: &[(&str, u64)] = &[
            ("", 0),
            ("0", 0),
            ("12", 12),
            (" \t+12", 12),
            ("\n12", 0),
            ("- 1", 0),
            ("-1", u64::MAX),
            ("-0x10", 0u64.wrapping_sub(16)),
            ("--1", 0),
            ("0x1f", 31),
            ("0XFFg", 255),
            ("0x", 0),
            ("017", 15),
            ("08", 0),
            ("1k", 1),
            ("abc", 0),
            ("18446744073709551599", 18446744073709551599),
            ("18446744073709551600", 18446744073709551600),
            ("18446744073709551609", u64::MAX),
            ("18446744073709551615", u64::MAX),
            ("18446744073709551616", u64::MAX),
            ("-99999999999999999999", u64::MAX),
            ("0xffffffffffffffff", u64::MAX),
            ("0xffffffffffffffffff", u64::MAX),
        ];
        for (text, number) in cases {
            assert_eq!(parse_number(text.as_bytes()), *number, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_string_is_read(string in proptest::collection::vec(any::<u8>(), 0..200)) {
            for (name, value) in items(&string) {
                prop_assert!(!name.contains(&b'=') && !name.contains(&b':') && !value.contains(&b':'));
                parse_number(value);
            }
        }

        #[test]
        fn items_come_back_from_what_they_are_written_as(
            pairs in proptest::collection::vec(("[a-z_.]{0,8}", "[a-z0-9=]{0,8}"), 0..8)
        ) {
            let string = pairs.iter().map(|(name, value)| std::format!("{name}={value}")).collect::<Vec<_>>().join(":");
            let read = parsed(&string);
            prop_assert!(read.iter().copied().eq(pairs.iter().map(|(name, value)| (name.as_str(), value.as_str()))));
        }

        #[test]
        fn numbers_come_back_from_what_they_are_written_as(number in 0..u64::MAX / 16) {
            prop_assert_eq!(parse_number(std::format!("{number}").as_bytes()), number);
            prop_assert_eq!(parse_number(std::format!("{number:#x}").as_bytes()), number);
            prop_assert_eq!(parse_number(std::format!("0{number:o}").as_bytes()), number);
            prop_assert_eq!(parse_number(std::format!("-{number}").as_bytes()), number.wrapping_neg());
        }

        #[test]
        fn digits_in_any_number_never_panic(text in "[ \t]*[-+]?(0x|0)?[0-9a-f]{0,40}.*") {
            parse_number(text.as_bytes());
        }
    }
}
