//! A JSON document as a tree that borrows from the body, for documents whose shape cannot be trusted.
//!
//! Stores send `null`, numbers as strings, and objects where others send lists. Typed
//! deserialization refuses the whole document for one such field; a tree is asked field by field.
//! Depth is bounded by `serde_json` (128), width by the length of the body, which the intake limits.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// One value. Booleans, `null`, negative and fractional numbers carry nothing we ask for.
pub(super) enum Json<'a> {
    Other,
    Number(u64),
    Text(Cow<'a, str>),
    List(Vec<Json<'a>>),
    Map(Vec<(Cow<'a, str>, Json<'a>)>),
}

impl<'a> Json<'a> {
    /// Reads a whole body; `None` if it is not one JSON document in UTF-8.
    pub(super) fn read(body: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(body).ok()
    }

    /// The field of this object that has one of `names`, if this is an object and has it.
    pub(super) fn field(&self, names: &[&str]) -> Option<&Json<'a>> {
        let Json::Map(fields) = self else { return None };
        fields.iter().find(|(name, _)| names.contains(&name.as_ref())).map(|(_, value)| value)
    }

    /// The text of that field, unless it is absent, empty or not a text.
    pub(super) fn text(&self, names: &[&str]) -> Option<&str> {
        match self.field(names)? {
            Json::Text(text) if !text.is_empty() => Some(text),
            Json::Text(_) | Json::Other | Json::Number(_) | Json::List(_) | Json::Map(_) => None,
        }
    }

    /// The whole number in that field, also when it is written as a string.
    pub(super) fn number(&self, names: &[&str]) -> Option<u64> {
        match self.field(names)? {
            Json::Number(number) => Some(*number),
            Json::Text(text) => text.parse().ok(),
            Json::Other | Json::List(_) | Json::Map(_) => None,
        }
    }
}

impl<'de> Deserialize<'de> for Json<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Tree)
    }
}

struct Tree;

impl<'de> Visitor<'de> for Tree {
    type Value = Json<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json<'de>, E> {
        Ok(Json::Other)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Json<'de>, E> {
        Ok(Json::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Json<'de>, E> {
        Ok(Json::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Json<'de>, E> {
        Ok(Json::Other)
    }

    fn visit_u64<E>(self, number: u64) -> Result<Json<'de>, E> {
        Ok(Json::Number(number))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Json<'de>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Json::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json<'de>, A::Error> {
        let mut fields = Vec::new();
        while let Some((name, value)) = map.next_entry::<Json<'de>, _>()? {
            if let Json::Text(name) = name {
                fields.push((name, value));
            }
        }
        Ok(Json::Map(fields))
    }
}
