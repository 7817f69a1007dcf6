//! Query parameters as `application/x-www-form-urlencoded` (WHATWG URL, section 5.1).

use std::borrow::Cow;

/// The first value of the parameter `name`, decoded; empty when it has no `=`.
pub(super) fn first<'a>(query: &'a str, name: &str) -> Option<Cow<'a, str>> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (!pair.is_empty() && decode(key) == name).then(|| decode(value))
    })
}

fn decode(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text);
    }
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => match hex_pair(bytes.clone()) {
                Some(value) => {
                    bytes.nth(1);
                    value
                }
                None => byte,
            },
            other => other,
        });
    }
    Cow::Owned(String::from_utf8_lossy(&decoded).into_owned())
}

fn hex_pair(mut rest: impl Iterator<Item = u8>) -> Option<u8> {
    let mut digit = || char::from(rest.next()?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some(digit()? << 4 | digit()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_escapes_stand_for_themselves() {
        assert_eq!(first("a=%4", "a").as_deref(), Some("%4"));
        assert_eq!(first("a=%zz%41", "a").as_deref(), Some("%zzA"));
        assert_eq!(first("&&b", "b").as_deref(), Some(""));
        assert_eq!(first("", ""), None);
    }
}
