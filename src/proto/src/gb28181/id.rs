//! Identities of devices, channels and platforms (GB/T 28181-2022 annex E).

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The longest identity that is kept, in characters. The standard's are 20; what is longer than this is refused.
pub const ID_CHARS_MAX: usize = 32;

/// Characters of an identity as the standard has it.
const STANDARD_CHARS: usize = 20;

/// Characters of a domain: region 8, industry 2.
const DOMAIN_CHARS: usize = 10;

/// A text is no identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum DeviceIdError {
    #[error("the GB28181 id is empty; it is the 20 digits that the device shows on its GB28181 page")]
    Empty,
    #[error(
        "the GB28181 id is longer than {ID_CHARS_MAX} characters; it is the 20 digits that the device shows on its GB28181 page"
    )]
    TooLong,
    #[error(
        "the GB28181 id holds something else than digits and letters; it is the 20 digits that the device shows on its GB28181 page"
    )]
    Character,
}

/// The identity of a device, a channel or a platform.
///
/// 20 decimal digits by the standard: region 8, industry 2, type 3, network 1, serial 6. Devices with other ones exist (older ones with 18
/// digits, some with letters, and the regions of a catalog have 2 to 8), and none may get lost over that: any 1 to 32
/// ASCII letters and digits are an identity, compared with case. [`is_standard`](Self::is_standard) tells them apart.
///
/// It comes from outside: never make a path of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId {
    /// Padded with zero bytes, so that the derived order is that of the texts.
    bytes: [u8; ID_CHARS_MAX],
    len: u8,
}

impl DeviceId {
    /// Reads an identity; spaces around it do not count.
    pub fn parse(text: &str) -> Result<Self, DeviceIdError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(DeviceIdError::Empty);
        }
        if !text.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(DeviceIdError::Character);
        }
        let mut bytes = [0; ID_CHARS_MAX];
        let place = bytes.get_mut(..text.len()).ok_or(DeviceIdError::TooLong)?;
        place.copy_from_slice(text.as_bytes());
        Ok(Self {
            bytes,
            len: text.len() as u8,
        })
    }

    /// The identity as text.
    pub fn as_str(&self) -> &str {
        let text = self.bytes.get(..usize::from(self.len)).unwrap_or_default();
        std::str::from_utf8(text).unwrap_or_default()
    }

    /// Whether it has the standard's form of 20 digits.
    pub fn is_standard(&self) -> bool {
        self.as_str().len() == STANDARD_CHARS && self.as_str().bytes().all(|b| b.is_ascii_digit())
    }

    /// The SIP domain that belongs to it: the first 10 characters, or all of a shorter one.
    pub fn domain(&self) -> &str {
        let text = self.as_str();
        text.get(..DOMAIN_CHARS).unwrap_or(text)
    }

    /// What kind of thing it names (digits 11 to 13, annex E.1); `None` where it is not a standard one.
    pub fn type_code(&self) -> Option<u16> {
        if !self.is_standard() {
            return None;
        }
        self.as_str().get(10..13)?.parse().ok()
    }

    /// Whether pictures can be asked of it, as far as the identity tells: cameras (131, 132), mobile devices that show themselves as
    /// their own channel (138), and everything without a standard identity that is not a region. An encoder or recorder that is
    /// its own only channel is not told by its number.
    pub fn is_camera_like(&self) -> bool {
        match self.type_code() {
            Some(code) => matches!(code, 131 | 132 | 138),
            None => !self.is_region(),
        }
    }

    /// Whether it is a device that has channels: DVR (111), video server (112), encoder (113), NVR (118), hybrid (119).
    pub fn is_recorder_like(&self) -> bool {
        matches!(self.type_code(), Some(111..=113 | 118 | 119))
    }

    /// Whether it names an alarm input (134) or output (135), or an alarm controller (117).
    pub fn is_alarm_like(&self) -> bool {
        matches!(self.type_code(), Some(117 | 134 | 135))
    }

    /// Whether it groups others: a platform or server (200 to 214), business group (215), virtual organisation (216), region.
    pub fn is_group_like(&self) -> bool {
        matches!(self.type_code(), Some(200..=216)) || self.is_region()
    }

    /// Whether it is an administrative region: its first 2, 4, 6 or 8 digits only.
    pub fn is_region(&self) -> bool {
        matches!(self.len, 2 | 4 | 6 | 8) && self.as_str().bytes().all(|b| b.is_ascii_digit())
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for DeviceId {
    type Err = DeviceIdError;

    fn from_str(text: &str) -> Result<Self, DeviceIdError> {
        Self::parse(text)
    }
}

impl AsRef<str> for DeviceId {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl Serialize for DeviceId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for DeviceId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standard_id_has_its_parts() {
        let id = DeviceId::parse(" 34020000001320000001\n").unwrap();
        assert!(id.is_standard() && id.is_camera_like() && !id.is_recorder_like());
        assert_eq!((id.domain(), id.type_code()), ("3402000000", Some(132)));
        assert_eq!(id.to_string(), "34020000001320000001");
        assert_eq!(format!("{id:>22}"), "  34020000001320000001");
    }

    #[test]
    fn kinds_are_told_by_their_number() {
        let id = |kind: &str| DeviceId::parse(&format!("3402000000{kind}0000001")).unwrap();
        assert!(id("131").is_camera_like() && id("138").is_camera_like());
        for kind in ["111", "118", "134", "200", "215", "216", "137"] {
            assert!(!id(kind).is_camera_like(), "{kind}");
        }
        assert!(id("111").is_recorder_like() && id("118").is_recorder_like());
        assert!(id("134").is_alarm_like() && !id("134").is_group_like());
        assert!(id("200").is_group_like() && id("216").is_group_like());
    }

    #[test]
    fn other_ids_are_kept() {
        for text in [
            "340200000013200001",
            "D1",
            "34020000001320000001ab",
            "00000000000000000000000000000000",
        ] {
            let id = DeviceId::parse(text).unwrap();
            assert!(!id.is_standard() && id.as_str() == text && id.type_code().is_none() && id.is_camera_like());
        }
        let region = DeviceId::parse("340200").unwrap();
        assert!(region.is_region() && region.is_group_like() && !region.is_camera_like());
        assert_eq!(region.domain(), "340200");
    }

    #[test]
    fn what_could_be_a_path_or_a_header_is_no_id() {
        assert_eq!(DeviceId::parse("  "), Err(DeviceIdError::Empty));
        assert_eq!(DeviceId::parse(&"1".repeat(33)), Err(DeviceIdError::TooLong));
        for text in ["../x", "a b", "1\r\n2", "caf\u{e9}", "a@b", "1\0"] {
            assert_eq!(DeviceId::parse(text), Err(DeviceIdError::Character), "{text}");
        }
    }

    #[test]
    fn the_order_is_that_of_the_texts() {
        let mut texts = vec!["34020000001320000002", "3402", "34020000001320000001", "b", "a1", "a"];
        let mut ids: Vec<_> = texts.iter().map(|t| DeviceId::parse(t).unwrap()).collect();
        texts.sort_unstable();
        ids.sort_unstable();
        assert_eq!(ids.iter().map(DeviceId::as_str).collect::<Vec<_>>(), texts);
    }
}
