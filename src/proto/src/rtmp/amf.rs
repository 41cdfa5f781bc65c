//! AMF0 (Action Message Format, version 0): the values that RTMP's commands are made of. No AMF3: commands of the AMF3 kind carry AMF0
//! behind a zero byte, and a value that switches to AMF3 inside is an error.

use bytes::{BufMut, BytesMut};

/// Nested objects and arrays. A value that is deeper is an error.
pub const DEPTH_MAX: usize = 16;
/// Values of one message, nested ones counted. A message with more is an error.
pub const VALUES_MAX: usize = 1024;

const NUMBER: u8 = 0x00;
const BOOLEAN: u8 = 0x01;
const STRING: u8 = 0x02;
const OBJECT: u8 = 0x03;
const NULL: u8 = 0x05;
const UNDEFINED: u8 = 0x06;
const ECMA_ARRAY: u8 = 0x08;
const OBJECT_END: u8 = 0x09;
const STRICT_ARRAY: u8 = 0x0A;
const DATE: u8 = 0x0B;
const LONG_STRING: u8 = 0x0C;
const XML: u8 = 0x0F;
const TYPED_OBJECT: u8 = 0x10;

/// A value (section 2 of the AMF0 specification).
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum Value {
    Number(f64),
    Boolean(bool),
    /// Also of a long string and an XML document. What is not UTF-8 is replaced.
    String(String),
    /// Also of an ECMA array and a typed object; in the sender's order.
    Object(Vec<(String, Value)>),
    Null,
    Undefined,
    Array(Vec<Value>),
    /// Milliseconds since 1970 in UTC.
    Date(f64),
}

/// Bytes are not AMF0, or pass a limit. The sender's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed AMF0: {0}")]
pub struct AmfError(pub &'static str);

impl Value {
    /// A string.
    pub fn string(text: impl Into<String>) -> Self {
        Self::String(text.into())
    }

    /// An object of these properties.
    pub fn object<'a>(properties: impl IntoIterator<Item = (&'a str, Self)>) -> Self {
        Self::Object(properties.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())
    }

    /// The text of a string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// The value of a number.
    pub const fn as_number(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// The first property of that name of an object.
    pub fn get(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Object(properties) => properties.iter().find(|(k, _)| k == name).map(|(_, v)| v),
            _ => None,
        }
    }

    /// Appends the value. Strings longer than 65 535 bytes become long strings; names are cut to that.
    pub fn write(&self, out: &mut BytesMut) {
        match self {
            Self::Number(number) => {
                out.put_u8(NUMBER);
                out.put_f64(*number);
            }
            Self::Boolean(value) => out.put_slice(&[BOOLEAN, u8::from(*value)]),
            Self::String(text) => {
                if let Ok(len) = u16::try_from(text.len()) {
                    out.put_u8(STRING);
                    out.put_u16(len);
                } else {
                    out.put_u8(LONG_STRING);
                    out.put_u32(text.len() as u32);
                }
                out.put_slice(text.as_bytes());
            }
            Self::Object(properties) => {
                out.put_u8(OBJECT);
                for (name, value) in properties {
                    let name = name.as_bytes();
                    let name = &name[..name.len().min(usize::from(u16::MAX))];
                    out.put_u16(name.len() as u16);
                    out.put_slice(name);
                    value.write(out);
                }
                out.put_slice(&[0, 0, OBJECT_END]);
            }
            Self::Null => out.put_u8(NULL),
            Self::Undefined => out.put_u8(UNDEFINED),
            Self::Array(values) => {
                out.put_u8(STRICT_ARRAY);
                out.put_u32(values.len() as u32);
                for value in values {
                    value.write(out);
                }
            }
            Self::Date(ms) => {
                out.put_u8(DATE);
                out.put_f64(*ms);
                out.put_u16(0); // the time zone, which is reserved
            }
        }
    }
}

/// Reads the values of one message, one after the other.
#[derive(Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    values: usize,
}

impl<'a> Reader<'a> {
    /// For the body of a message.
    pub const fn new(body: &'a [u8]) -> Self {
        Self { rest: body, values: 0 }
    }

    /// The next value; `None` at the end.
    pub fn next_value(&mut self) -> Result<Option<Value>, AmfError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        self.value(0).map(Some)
    }

    fn value(&mut self, depth: usize) -> Result<Value, AmfError> {
        self.values += 1;
        if self.values > VALUES_MAX {
            return Err(AmfError("too many values"));
        }
        if depth > DEPTH_MAX {
            return Err(AmfError("nested too deep"));
        }
        Ok(match self.take::<1>()?[0] {
            NUMBER => Value::Number(f64::from_be_bytes(self.take()?)),
            BOOLEAN => Value::Boolean(self.take::<1>()?[0] != 0),
            STRING => Value::String(self.short_string()?),
            OBJECT => Value::Object(self.properties(depth)?),
            NULL => Value::Null,
            UNDEFINED => Value::Undefined,
            ECMA_ARRAY => {
                self.take::<4>()?; // the number of properties: a hint, and often wrong
                Value::Object(self.properties(depth)?)
            }
            STRICT_ARRAY => {
                let count = u32::from_be_bytes(self.take()?);
                let mut values = Vec::new();
                for _ in 0..count {
                    values.push(self.value(depth + 1)?);
                }
                Value::Array(values)
            }
            DATE => {
                let ms = f64::from_be_bytes(self.take()?);
                self.take::<2>()?;
                Value::Date(ms)
            }
            LONG_STRING | XML => {
                let len = u32::from_be_bytes(self.take()?) as usize;
                Value::String(self.text(len)?)
            }
            TYPED_OBJECT => {
                self.short_string()?;
                Value::Object(self.properties(depth)?)
            }
            0x11 => return Err(AmfError("a value in AMF3")),
            _ => return Err(AmfError("an unknown or reserved type")),
        })
    }

    /// Properties up to the end marker; some senders leave that out at the end of a message.
    fn properties(&mut self, depth: usize) -> Result<Vec<(String, Value)>, AmfError> {
        let mut properties = Vec::new();
        while !self.rest.is_empty() {
            let name = self.short_string()?;
            if name.is_empty() && self.rest.first().is_none_or(|b| *b == OBJECT_END) {
                self.rest = self.rest.get(1..).unwrap_or_default();
                break;
            }
            properties.push((name, self.value(depth + 1)?));
        }
        Ok(properties)
    }

    fn short_string(&mut self) -> Result<String, AmfError> {
        let len = usize::from(u16::from_be_bytes(self.take()?));
        self.text(len)
    }

    fn text(&mut self, len: usize) -> Result<String, AmfError> {
        let (text, rest) = self.rest.split_at_checked(len).ok_or(CUT_OFF)?;
        self.rest = rest;
        Ok(String::from_utf8_lossy(text).into_owned())
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], AmfError> {
        let (bytes, rest) = self.rest.split_first_chunk::<N>().ok_or(CUT_OFF)?;
        self.rest = rest;
        Ok(*bytes)
    }
}

const CUT_OFF: AmfError = AmfError("cut off");

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(body: &[u8]) -> Result<Vec<Value>, AmfError> {
        let mut reader = Reader::new(body);
        let mut values = Vec::new();
        while let Some(value) = reader.next_value()? {
            values.push(value);
        }
        Ok(values)
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<i32>().prop_map(|n| Value::Number(f64::from(n))),
            any::<bool>().prop_map(Value::Boolean),
            ".{0,20}".prop_map(Value::String),
            Just(Value::Null),
            Just(Value::Undefined),
            any::<u32>().prop_map(|n| Value::Date(f64::from(n))),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(("[a-z]{1,8}", inner.clone()), 0..6).prop_map(Value::Object),
                prop::collection::vec(inner, 0..6).prop_map(Value::Array),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_reads_the_same(values in prop::collection::vec(any_value(), 0..6)) {
            let mut out = BytesMut::new();
            for value in &values {
                value.write(&mut out);
            }
            prop_assert_eq!(all(&out).unwrap(), values);
        }
    }

    #[test]
    fn what_senders_do_otherwise() {
        // An ECMA array that claims three properties, has one, and is not ended.
        let body = b"\x08\x00\x00\x00\x03\x00\x01a\x05";
        assert_eq!(all(body), Ok(vec![Value::object([("a", Value::Null)])]));
        // An object with an empty name that is not the end.
        let body = b"\x03\x00\x00\x05\x00\x00\x09";
        assert_eq!(all(body), Ok(vec![Value::object([("", Value::Null)])]));
        let typed = b"\x10\x00\x01T\x00\x01a\x01\x01\x00\x00\x09\x0F\x00\x00\x00\x01x";
        let expected = vec![Value::object([("a", Value::Boolean(true))]), Value::string("x")];
        assert_eq!(all(typed), Ok(expected));
        let long = "y".repeat(70_000);
        let mut out = BytesMut::new();
        Value::string(long.clone()).write(&mut out);
        assert_eq!(all(&out), Ok(vec![Value::String(long)]));
    }

    #[test]
    fn limits_and_nonsense_are_errors() {
        assert_eq!(all(&[0x0A, 0xFF, 0xFF, 0xFF, 0xFF, 5]), Err(CUT_OFF));
        assert_eq!(all(&[0x0C, 0xFF, 0xFF, 0xFF, 0xFF, b'x']), Err(CUT_OFF));
        assert_eq!(all(&[0x11, 1]), Err(AmfError("a value in AMF3")));
        assert_eq!(all(&[0x0D]), Err(AmfError("an unknown or reserved type")));
        let deep = b"\x0A\x00\x00\x00\x01".repeat(100_000);
        assert_eq!(all(&deep), Err(AmfError("nested too deep")));
        assert_eq!(all(&vec![NULL; VALUES_MAX + 1]), Err(AmfError("too many values")));
        assert_eq!(all(&vec![NULL; VALUES_MAX]).map(|v| v.len()), Ok(VALUES_MAX));
    }
}
