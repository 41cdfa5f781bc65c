//! EBML (RFC 8794): element headers in both directions, and a walker with strict bounds. No Matroska meaning here.

use super::reader::{ReadError, ReadErrorKind};

/// A Void element's id.
pub const VOID: u32 = 0xEC;
/// A CRC-32 element's id.
pub const CRC32: u32 = 0xBF;
/// The data size that means "not known", in 8 bytes.
pub const UNKNOWN_SIZE: [u8; 8] = [0x01, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF];

/// The largest number a data size can say (RFC 8794 section 6).
pub const SIZE_MAX: u64 = (1 << 56) - 2;

/// `n` as an 8-byte data size. `n` is at most [`SIZE_MAX`].
pub const fn size8(n: u64) -> [u8; 8] {
    (0x0100_0000_0000_0000 | n).to_be_bytes()
}

/// An element's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Element {
    /// The id with its marker bits.
    pub id: u32,
    /// Bytes of the header itself.
    pub header_len: usize,
    /// Bytes of data; `None` if the size is not known.
    pub size: Option<u64>,
}

/// Reads an element's header off the front of `b`, whose first byte is at `at`.
///
/// `Truncated` means that more bytes may make it valid.
pub fn element(b: &[u8], at: u64) -> Result<Element, ReadError> {
    let truncated = || ReadError::new(at + b.len() as u64, ReadErrorKind::Truncated);
    let &first = b.first().ok_or_else(truncated)?;
    let id_len = first.leading_zeros() as usize + 1;
    if id_len > 4 {
        return Err(ReadError::new(at, ReadErrorKind::BadId));
    }
    let id = b.get(..id_len).ok_or_else(truncated)?;
    let id = id.iter().fold(0u32, |v, &x| v << 8 | u32::from(x));
    let (size, size_len) = match data_size(&b[id_len..]) {
        Some(Some(v)) => v,
        Some(None) => return Err(ReadError::new(at + id_len as u64, ReadErrorKind::BadSize)),
        None => return Err(truncated()),
    };
    Ok(Element {
        id,
        header_len: id_len + size_len,
        size,
    })
}

/// `None`: more bytes are needed. `Some(None)`: not a size. Otherwise the size and the length of its field.
#[allow(clippy::type_complexity, clippy::option_option)]
fn data_size(b: &[u8]) -> Option<Option<(Option<u64>, usize)>> {
    let &first = b.first()?;
    let len = first.leading_zeros() as usize + 1;
    if len > 8 {
        return Some(None);
    }
    let field = b.get(..len)?;
    let mask = if len == 8 { 0 } else { 0xFF >> len };
    let v = field[1..]
        .iter()
        .fold(u64::from(first & mask), |v, &x| v << 8 | u64::from(x));
    let all_ones = (1u64 << (7 * len)) - 1;
    Some(Some(((v != all_ones).then_some(v), len)))
}

/// The children of a master element, or the top of a buffer: each step yields one whole child or an error, then ends.
#[derive(Debug, Clone)]
pub struct Children<'a> {
    data: &'a [u8],
    pos: usize,
    /// Where `data[0]` is in the file.
    at: u64,
    failed: bool,
}

/// A child with all of its data in memory.
#[derive(Debug, Clone, Copy)]
pub struct Child<'a> {
    /// The id with its marker bits.
    pub id: u32,
    /// Where the element starts in the file.
    pub at: u64,
    /// Where `data` starts in the file.
    pub data_at: u64,
    /// The data.
    pub data: &'a [u8],
}

impl<'a> Children<'a> {
    /// Walks `data`, whose first byte is at `at` in the file.
    pub const fn new(data: &'a [u8], at: u64) -> Self {
        Self {
            data,
            pos: 0,
            at,
            failed: false,
        }
    }

    fn step(&mut self) -> Result<Child<'a>, ReadError> {
        let at = self.at + self.pos as u64;
        let head = element(&self.data[self.pos..], at)?;
        let size = head
            .size
            .ok_or_else(|| ReadError::new(at, ReadErrorKind::UnknownSize))?;
        let start = self.pos + head.header_len;
        let end = usize::try_from(size)
            .ok()
            .and_then(|n| start.checked_add(n))
            .filter(|&end| end <= self.data.len())
            .ok_or_else(|| ReadError::new(at, ReadErrorKind::TooLong(head.id)))?;
        self.pos = end;
        Ok(Child {
            id: head.id,
            at,
            data_at: self.at + start as u64,
            data: &self.data[start..end],
        })
    }
}

impl<'a> Iterator for Children<'a> {
    type Item = Result<Child<'a>, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed || self.pos >= self.data.len() {
            return None;
        }
        let r = self.step();
        self.failed = r.is_err();
        Some(r)
    }
}

impl<'a> Child<'a> {
    /// The children of this element.
    pub const fn children(&self) -> Children<'a> {
        Children::new(self.data, self.data_at)
    }

    fn bad_value(&self) -> ReadError {
        ReadError::new(self.data_at, ReadErrorKind::BadValue(self.id))
    }

    /// The data as an unsigned integer (RFC 8794 section 7.2).
    pub fn uint(&self) -> Result<u64, ReadError> {
        if self.data.len() > 8 {
            return Err(self.bad_value());
        }
        Ok(self.data.iter().fold(0, |v, &x| v << 8 | u64::from(x)))
    }

    /// The data as a float (section 7.3).
    pub fn float(&self) -> Result<f64, ReadError> {
        match self.data.len() {
            0 => Ok(0.0),
            4 => Ok(f64::from(f32::from_be_bytes(self.data.try_into().unwrap_or_default()))),
            8 => Ok(f64::from_be_bytes(self.data.try_into().unwrap_or_default())),
            _ => Err(self.bad_value()),
        }
    }

    /// The data as text, without what follows a NUL (section 7.4).
    pub fn text(&self) -> Result<&'a str, ReadError> {
        let end = self.data.iter().position(|&b| b == 0).unwrap_or(self.data.len());
        std::str::from_utf8(&self.data[..end]).map_err(|_| self.bad_value())
    }
}

/// Bytes of padding that bring `position` to a multiple of `align`: 0, or enough for a Void element.
pub const fn padding(position: u64, align: u64) -> u64 {
    let p = (align - position % align) % align;
    // One byte alone cannot be an element.
    if p == 1 { p + align } else { p }
}

/// The header of a Void element of `total` bytes with its header, and the length of that header. `total` is 2 or more.
pub fn void_header(total: u64) -> ([u8; 9], usize) {
    let mut h = [0; 9];
    h[0] = VOID as u8;
    if total < 10 {
        h[1] = 0x80 | (total - 2) as u8;
        (h, 2)
    } else {
        h[1..].copy_from_slice(&size8(total - 9));
        (h, 9)
    }
}

/// Appends a Void element of `total` bytes; nothing if `total` is 0.
pub fn put_void(out: &mut Vec<u8>, total: u64) {
    if total == 0 {
        return;
    }
    let (head, n) = void_header(total);
    out.extend_from_slice(&head[..n]);
    out.resize(out.len() + (total as usize - n), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_headers_and_says_where_they_fail() {
        let e = element(&[0x1F, 0x43, 0xB6, 0x75, 0x40, 0x02], 10).unwrap();
        assert_eq!((e.id, e.header_len, e.size), (0x1F43_B675, 6, Some(2)));
        assert_eq!(element(&[0xEC, 0xFF], 0).unwrap().size, None);
        assert_eq!(element(&[0xEC, 0x01, 0, 0, 0, 0, 0, 0, 7], 0).unwrap().size, Some(7));
        assert_eq!(element(&[0, 0], 5), Err(ReadError::new(5, ReadErrorKind::BadId)));
        assert_eq!(element(&[0xEC, 0], 5), Err(ReadError::new(6, ReadErrorKind::BadSize)));
        assert_eq!(
            element(&[0x1F, 0x43], 5),
            Err(ReadError::new(7, ReadErrorKind::Truncated))
        );
    }

    #[test]
    fn voids_have_exactly_the_length_asked_for() {
        for total in (2..300).chain([4095, 4096, 4097, 70_000]) {
            let mut v = Vec::new();
            put_void(&mut v, total);
            assert_eq!(v.len() as u64, total);
            let children: Vec<_> = Children::new(&v, 0).collect::<Result<_, _>>().unwrap();
            assert_eq!((children.len(), children[0].id), (1, VOID));
        }
        for p in 0..9000 {
            let n = padding(p, 4096);
            assert!(n != 1 && (p + n).is_multiple_of(4096));
        }
    }

    #[test]
    fn a_child_never_reaches_out_of_its_parent() {
        let data = [0xE7, 0x81, 5, 0xA3, 0x83, 1, 2];
        let mut it = Children::new(&data, 100);
        assert_eq!(it.next().unwrap().unwrap().uint().unwrap(), 5);
        assert_eq!(
            it.next().unwrap().unwrap_err(),
            ReadError::new(103, ReadErrorKind::TooLong(0xA3))
        );
        assert!(it.next().is_none());
    }
}
