//! Parses JSON (RFC 8259) from an untrusted peer, with any members, and with a limit for the number of values.

use std::fmt;
use std::time::Duration;

use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};

/// The maximum number of values in one text. An object of the status document has 30.
const MOST: usize = 1 << 18;

/// A JSON value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Json {
    /// `null`, or a number that is negative or too large.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// An integer.
    Number(u64),
    /// A number with a fraction. In the documents, all of them are seconds. Floating-point arithmetic would add 25 KiB
    /// to the program.
    Seconds(Duration),
    /// A string.
    Text(String),
    /// An array.
    List(Vec<Json>),
    /// An object, with its members in the order of the text.
    Object(Vec<(String, Json)>),
}

impl Json {
    /// Parses a whole text; `None` if it is not valid JSON or has too many values.
    pub(crate) fn parse(text: &[u8]) -> Option<Json> {
        let mut reader = serde_json::Deserializer::from_slice(text);
        let value = Reader { left: &mut { MOST } }.deserialize(&mut reader).ok()?;
        reader.end().ok()?;
        Some(value)
    }

    /// Returns a member of an object; null if it does not exist.
    pub(crate) fn get(&self, name: &str) -> &Json {
        match self {
            Json::Object(members) => {
                members.iter().find(|(n, _)| n == name).map_or(&Json::Null, |(_, value)| value)
            }
            _ => &Json::Null,
        }
    }

    /// Returns the elements of an array; empty for any other value.
    pub(crate) fn list(&self) -> &[Json] {
        match self {
            Json::List(values) => values,
            _ => &[],
        }
    }

    /// Returns a string; empty for any other value.
    pub(crate) fn text(&self) -> &str {
        match self {
            Json::Text(text) => text,
            _ => "",
        }
    }

    /// Returns an integer.
    pub(crate) fn number(&self) -> Option<u64> {
        match self {
            Json::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// Returns a number of seconds.
    pub(crate) fn seconds(&self) -> Option<Duration> {
        match self {
            Json::Number(number) => Some(Duration::from_secs(*number)),
            Json::Seconds(seconds) => Some(*seconds),
            _ => None,
        }
    }

    /// Whether the value is `true`.
    pub(crate) fn is_true(&self) -> bool {
        *self == Json::Bool(true)
    }
}

/// Deserializes one value and everything in it.
struct Reader<'a> {
    /// How many more values are allowed. If there are more, parsing stops within the text, which is an error.
    left: &'a mut usize,
}

impl Reader<'_> {
    fn one_more(&mut self) -> Option<Reader<'_>> {
        *self.left = self.left.checked_sub(1)?;
        Some(Reader { left: self.left })
    }
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = Json;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Number(value))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(Duration::try_from_secs_f64(value).map_or(Json::Null, Json::Seconds))
    }

    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut values: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(reader) = self.one_more()
            && let Some(value) = values.next_element_seed(reader)?
        {
            list.push(value);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<Json, A::Error> {
        let mut object = Vec::new();
        while let Some(reader) = self.one_more()
            && let Some(name) = members.next_key()?
        {
            object.push((name, members.next_value_seed(reader)?));
        }
        Ok(Json::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_value_is_read() {
        let text = br#" {"a":[null,true,-1,2.5e3,1e300,18446744073709551615],"b":{"c":"\u00e4\n"},"a":1} "#;
        let value = Json::parse(text).unwrap();
        let seconds = Json::Seconds(Duration::from_secs(2_500));
        let list = [Json::Null, Json::Bool(true), Json::Null, seconds, Json::Null, Json::Number(u64::MAX)];
        assert_eq!(value.get("a").list(), list);
        assert_eq!(value.get("a").list()[3].seconds(), Some(Duration::from_secs(2_500)));
        assert_eq!(value.get("b").get("c").text(), "\u{e4}\n");
        assert_eq!((value.get("x"), value.get("a").get("x")), (&Json::Null, &Json::Null));
    }

    #[test]
    fn invalid_or_too_much_json_is_refused() {
        let many = format!("[{}0]", "0,".repeat(MOST));
        let deep = "[".repeat(100_000);
        for text in ["", "x", "[", "[1]x", "<html>", "\"\\ud800\"", "{\"a\":1,}", &many, &deep] {
            assert_eq!(Json::parse(text.as_bytes()), None);
        }
        assert_eq!(Json::parse(b"\"\xff\""), None);
    }
}
