//! The XML under the messages: charsets, a bounded reader that keeps known fields only, a writer.
//!
//! No entity is expanded but the five of XML and character references; a document type is refused.

use std::{
    borrow::Cow,
    fmt::{self, Write as _},
};

use encoding_rs::GB18030;
use quick_xml::{
    Reader,
    events::{BytesRef, BytesStart, Event},
};

use super::{BODY_BYTES_MAX, ITEMS_MAX, ManscdpError};

/// The deepest nesting that is read; deeper bodies are refused. The standard's own deepest is 6.
pub(super) const DEPTH_MAX: usize = 16;
/// The most fields that are kept of an item, or of the message around them; further ones are passed over.
pub(super) const FIELDS_MAX: usize = 128;
/// The longest text of one field, in bytes; a longer one is cut.
pub(super) const TEXT_BYTES_MAX: usize = 4096;
/// The most attributes of the root element that are looked at.
const ATTRIBUTES_MAX: usize = 16;

/// The elements that are kept; all others are passed over, with what is in them.
const NAMES: [&str; 72] = [
    "Address",
    "AlarmCmd",
    "AlarmDescription",
    "AlarmMethod",
    "AlarmPriority",
    "AlarmTime",
    "AlarmType",
    "AlarmTypeParam",
    "Altitude",
    "Channel",
    "CivilCode",
    "CmdType",
    "DeviceID",
    "DeviceName",
    "DeviceTime",
    "Direction",
    "Encode",
    "EndAlarmPriority",
    "EndTime",
    "Event",
    "EventType",
    "FilePath",
    "FileSize",
    "Firmware",
    "GuardCmd",
    "IFameCmd",
    "IFrameCmd",
    "IPAddress",
    "Info",
    "Interval",
    "Item",
    "Latitude",
    "Longitude",
    "Manufacturer",
    "Model",
    "Name",
    "NotifyType",
    "Online",
    "Owner",
    "PTZCmd",
    "PTZType",
    "ParentID",
    "Parental",
    "Reason",
    "Record",
    "RecordCmd",
    "RecorderID",
    "RegisterWay",
    "Result",
    "SN",
    "Secrecy",
    "Speed",
    "StartAlarmPriority",
    "StartTime",
    "Status",
    "SumNum",
    "TeleBoot",
    "Time",
    "Type",
    // Whatever else holds fields of its own, so that these are not taken for fields of what is around it.
    "AlarmStatus",
    "DeviceList",
    "RecordList",
    "ExtendInfo",
    "ExtraInfo",
    "BasicParam",
    "PlaybackControl",
    "HomePosition",
    "DragZoomIn",
    "DragZoomOut",
    "DeviceUpgrade",
    "TargetArea",
    "SnapShotConfig",
];

/// The name as it is kept. Compared without regard to case: devices write `DeviceId` too.
fn known(name: &str) -> &'static str {
    NAMES
        .into_iter()
        .find(|n| n.eq_ignore_ascii_case(name))
        .unwrap_or(UNKNOWN)
}

/// Stands for all elements that are not known.
const UNKNOWN: &str = "?";

/// The fields of a message or of one item.
#[derive(Debug, Default)]
pub(super) struct Record<'a> {
    /// Element around it (empty directly in the record), name, and text: neither empty nor with spaces around it.
    fields: Vec<(&'static str, &'static str, Cow<'a, str>)>,
}

impl<'a> Record<'a> {
    /// All texts of the fields of this name within an element of that name.
    pub(super) fn all_in(&self, parent: &'static str, name: &'static str) -> impl Iterator<Item = &str> {
        let fields = self.fields.iter().filter(move |f| f.0 == parent && f.1 == name);
        fields.map(|f| &*f.2)
    }

    /// The first of them.
    pub(super) fn get_in(&self, parent: &'static str, name: &'static str) -> Option<&str> {
        self.all_in(parent, name).next()
    }

    /// The text of a direct field.
    pub(super) fn get(&self, name: &'static str) -> Option<&str> {
        self.get_in("", name)
    }

    fn keep(&mut self, parent: &'static str, name: &'static str, text: Cow<'a, str>) {
        let text = trimmed(text);
        if name != UNKNOWN && !text.is_empty() && self.fields.len() < FIELDS_MAX {
            self.fields.push((parent, name, text));
        }
    }
}

/// Cut at the limit, with a space for every control character, and without spaces around it.
fn trimmed(text: Cow<'_, str>) -> Cow<'_, str> {
    let end = text.floor_char_boundary(TEXT_BYTES_MAX);
    match text {
        Cow::Borrowed(text) if !text.trim().contains(char::is_control) => {
            Cow::Borrowed(text.get(..end).unwrap_or_default().trim())
        }
        text => {
            let text = text.get(..end).unwrap_or_default().replace(char::is_control, " ");
            Cow::Owned(text.trim().to_owned())
        }
    }
}

/// A body, as far as it is known.
#[derive(Debug, Default)]
pub(super) struct Document<'a> {
    /// Name of the root element.
    pub root: String,
    /// What stands directly in it.
    pub fields: Record<'a>,
    /// Its items, whichever list they are in.
    pub items: Vec<Record<'a>>,
    /// How many items there are beyond [`ITEMS_MAX`].
    pub items_over: u32,
}

/// A document while it is read.
struct Builder<'a> {
    document: Document<'a>,
    /// The open elements; the root is the first.
    open: Vec<&'static str>,
    /// The number of open elements at the item that is being read, itself included.
    item_depth: Option<usize>,
    item: Record<'a>,
    /// The text of the innermost element, as long as it has no element in it.
    text: Option<Cow<'a, str>>,
}

impl<'a> Builder<'a> {
    fn start(&mut self, tag: &BytesStart<'_>) -> Result<(), ManscdpError> {
        if self.open.len() == DEPTH_MAX {
            return Err(ManscdpError::TooDeep);
        }
        let local = tag.local_name();
        let name = known(local.as_ref());
        if self.open.is_empty() {
            self.document.root = local.as_ref().chars().take(64).collect();
            for attribute in tag.attributes().with_checks(false).take(ATTRIBUTES_MAX).flatten() {
                let name = known(attribute.key.local_name().as_ref());
                if matches!(name, "CmdType" | "SN" | "DeviceID") {
                    let value = attribute.value.to_string();
                    self.document.fields.keep("", name, Cow::Owned(value));
                }
            }
        }
        self.open.push(name);
        if name == "Item" && self.item_depth.is_none() && self.open.len() > 1 {
            self.item_depth = Some(self.open.len());
        }
        self.text = Some(Cow::Borrowed(""));
        Ok(())
    }

    /// Whether that was the root.
    fn end(&mut self) -> bool {
        let depth = self.open.len();
        let name = self.open.pop().unwrap_or(UNKNOWN);
        if self.item_depth == Some(depth) {
            self.item_depth = None;
            self.text = None;
            let item = std::mem::take(&mut self.item);
            if self.document.items.len() < ITEMS_MAX {
                self.document.items.push(item);
            } else {
                self.document.items_over = self.document.items_over.saturating_add(1);
            }
        } else if let Some(text) = self.text.take() {
            let base = self.item_depth.unwrap_or(1);
            let parent = if self.open.len() == base {
                ""
            } else {
                self.open.last().copied().unwrap_or(UNKNOWN)
            };
            let is_over = self.item_depth.is_some() && self.document.items.len() == ITEMS_MAX;
            if !self.open.is_empty() && !is_over {
                let record = if self.item_depth.is_some() {
                    &mut self.item
                } else {
                    &mut self.document.fields
                };
                record.keep(parent, name, text);
            }
        }
        self.open.is_empty()
    }

    fn text(&mut self, piece: Cow<'a, str>) {
        match &mut self.text {
            Some(text) if text.is_empty() => *text = piece,
            // A little more than is kept, so that the cut is made in one place.
            Some(text) if text.len() <= TEXT_BYTES_MAX => text.to_mut().push_str(&piece),
            _ => {}
        }
    }
}

/// The character of a reference, or the reference as it stands where it means nothing: names hold things like `A&B;`.
fn resolve(reference: &BytesRef<'_>) -> Cow<'static, str> {
    let name: &str = reference;
    match name {
        "amp" => Cow::Borrowed("&"),
        "lt" => Cow::Borrowed("<"),
        "gt" => Cow::Borrowed(">"),
        "apos" => Cow::Borrowed("'"),
        "quot" => Cow::Borrowed("\""),
        _ => match reference.resolve_char_ref() {
            Ok(Some(character)) => Cow::Owned(character.to_string()),
            _ => Cow::Owned(format!("&{name};")),
        },
    }
}

/// Reads the root element; what stands behind it does not count.
pub(super) fn read(text: &str) -> Result<Document<'_>, ManscdpError> {
    let mut reader = Reader::from_str(text);
    let config = reader.config_mut();
    // Names of channels hold bare ampersands.
    config.allow_dangling_amp = true;
    config.expand_empty_elements = true;
    let mut builder = Builder {
        document: Document::default(),
        open: Vec::with_capacity(DEPTH_MAX),
        item_depth: None,
        item: Record::default(),
        text: None,
    };
    loop {
        let at = reader.buffer_position();
        match reader.read_event().map_err(|_| ManscdpError::Malformed(at))? {
            Event::Start(tag) => builder.start(&tag)?,
            Event::End(_) => {
                if builder.end() {
                    return Ok(builder.document);
                }
            }
            Event::Text(text) => builder.text(text.into_inner()),
            Event::CData(text) => builder.text(text.into_inner()),
            Event::GeneralRef(reference) => builder.text(resolve(&reference)),
            Event::DocType(_) => return Err(ManscdpError::DocumentType),
            Event::Eof => {
                return Err(if builder.open.is_empty() {
                    ManscdpError::NoXml
                } else {
                    ManscdpError::Truncated
                });
            }
            Event::Empty(_) | Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
        }
    }
}

/// The characters of a body. Every declared GB charset is read as GB 18030, which holds the others; where the bytes are not what
/// they are declared to be, the other one of UTF-8 and GB 18030 is tried.
pub(super) fn decode(bytes: &[u8]) -> Result<Cow<'_, str>, ManscdpError> {
    if bytes.len() > BODY_BYTES_MAX {
        return Err(ManscdpError::TooLong);
    }
    // A byte order mark and what some devices write before it, and the zero byte of a C string behind it.
    let start = memchr::memchr(b'<', bytes).ok_or(ManscdpError::NoXml)?;
    let bytes = bytes.get(start..).unwrap_or_default();
    let utf8 = std::str::from_utf8(bytes).ok().map(Cow::Borrowed);
    let gb = || GB18030.decode_without_bom_handling_and_without_replacement(bytes);
    Ok(if is_declared_gb(bytes) {
        match utf8 {
            Some(text) if is_surely_utf8(&text) => text,
            utf8 => gb()
                .or(utf8)
                .unwrap_or_else(|| GB18030.decode_without_bom_handling(bytes).0),
        }
    } else {
        utf8.or_else(gb).unwrap_or_else(|| String::from_utf8_lossy(bytes))
    })
}

/// Whether what can be read as UTF-8 is that and no GB 18030: Chinese text in UTF-8 has sequences of three bytes only, which GB 18030
/// would need rare characters in a row for, while two common ones of it can look like sequences of two.
fn is_surely_utf8(text: &str) -> bool {
    text.chars().all(|c| c.len_utf8() != 2)
}

/// Whether the XML declaration names GB2312, GBK, GB18030 or their kin.
fn is_declared_gb(bytes: &[u8]) -> bool {
    let head = bytes.get(..128).unwrap_or(bytes);
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let declaration = head.split("?>").next().unwrap_or_default();
    let Some((_, encoding)) = declaration.split_once("encoding") else {
        return false;
    };
    let name = encoding.trim_start_matches(|c: char| c == '=' || c == '"' || c == '\'' || c.is_whitespace());
    ["gb", "cp936", "x-gbk", "936", "chinese", "hz"]
        .iter()
        .any(|n| name.starts_with(n))
}

/// Writes a body.
pub(super) struct Writer(String);

impl Writer {
    /// With the declaration.
    pub(super) fn new() -> Self {
        Self("<?xml version=\"1.0\" encoding=\"GB2312\"?>\r\n".to_owned())
    }

    /// Starts an element that holds others.
    pub(super) fn open(&mut self, name: &str) {
        self.line(format_args!("<{name}>"));
    }

    /// Starts a list with its number of items.
    pub(super) fn open_list(&mut self, name: &str, len: usize) {
        self.line(format_args!("<{name} Num=\"{len}\">"));
    }

    /// Ends an element.
    pub(super) fn close(&mut self, name: &str) {
        self.line(format_args!("</{name}>"));
    }

    /// An element with text.
    pub(super) fn leaf(&mut self, name: &str, text: impl fmt::Display) {
        self.line(format_args!("<{name}>{}</{name}>", Escaped(&text.to_string())));
    }

    /// An element with text, if there is any.
    pub(super) fn leaf_if(&mut self, name: &str, text: Option<impl fmt::Display>) {
        if let Some(text) = text {
            self.leaf(name, text);
        }
    }

    /// An element with text, unless it is empty.
    pub(super) fn text(&mut self, name: &str, text: &str) {
        self.leaf_if(name, Some(text).filter(|t| !t.is_empty()));
    }

    fn line(&mut self, line: fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = write!(self.0, "{line}\r\n");
    }

    /// In GB 18030, of which the declared GB2312 is a part: devices that know only that read what it has.
    pub(super) fn finish(self) -> Vec<u8> {
        GB18030.encode(&self.0).0.into_owned()
    }
}

/// Text as it stands in XML, without characters that XML cannot hold.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '"' => f.write_str("&quot;"),
            '\'' => f.write_str("&apos;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => f.write_char(' '),
            c => f.write_char(c),
        })
    }
}
