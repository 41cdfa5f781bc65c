//! What real devices do otherwise than the standard says, each as a switch with a name and a sentence.

use std::{fmt, str::FromStr};

macro_rules! deviations {
    ($($variant:ident $name:literal $doc:literal,)*) => {
        /// One thing that real devices do otherwise than the standard says.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[allow(clippy::doc_markdown)] // The sentences are shown on a command line as well.
        pub enum Deviation {
            $(#[doc = $doc] $variant,)*
        }

        impl Deviation {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Its name on a command line, such as `map-missing`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What it does, in a sentence.
            pub const fn doc(self) -> &'static str {
                match self { $(Self::$variant => $doc,)* }
            }
        }
    };
}

deviations! {
    MapMissing "map-missing" "No program stream map is ever sent.",
    MapWrongCodec "map-wrong-codec" "The map says H.264 where it is H.265, and the other way round.",
    MapWrongCrc "map-wrong-crc" "The map's CRC is wrong.",
    NoSystemHeader "no-system-header" "Key frames have no system header.",
    PackStuffing "pack-stuffing" "Pack headers are stuffed with bytes that look like start codes.",
    PesLengthZero "pes-length-zero" "Video PES packets have length 0.",
    PesSmall "pes-small" "A picture is cut into many small PES packets; only the first has a PTS.",
    PtsRepeated "pts-repeated" "Every PES packet of a picture repeats the PTS.",
    PesPerNal "pes-per-nal" "Each NAL unit has a PES packet of its own, with the picture's PTS.",
    PesHeaderStuffing "pes-header-stuffing" "PES headers are longer than their fields.",
    PrivateStreams "private-streams" "Private streams, padding and unknown ids (BD, BE, BF, F0) stand between pictures and between the PES packets of one.",
    ShortStartCodes "short-start-codes" "NAL units after the first of a picture have 3-byte start codes.",
    MidGopStart "mid-gop-start" "The stream starts in the middle of a GOP.",
    MarkerNever "marker-never" "The RTP marker is never set.",
    MarkerAlways "marker-always" "The RTP marker is always set.",
    SsrcZero "ssrc-zero" "RTP packets have SSRC 0.",
    SsrcOwn "ssrc-own" "RTP packets have an SSRC of the device's own choice; the answer repeats the one asked for.",
    SsrcInAnswer "ssrc-in-answer" "The answer names another y= than was asked for, and it is used.",
    NoSsrcInAnswer "no-ssrc-in-answer" "The answer has no y=.",
    InterleavedFraming "interleaved-framing" "TCP is framed by '$', channel and length, as in RTSP, instead of RFC 4571.",
    OddPacketSizes "odd-packet-sizes" "RTP packets are cut at odd sizes, from a few bytes to full.",
    RtpExtras "rtp-extras" "RTP packets have a header extension and padding.",
    RawEs "raw-es" "Video is sent as an elementary stream by RFC 6184 and RFC 7798 instead of in a program stream; no sound.",
    VendorPayload "vendor-payload" "The answer announces a private payload format (DAHUA/90000).",
    LateConnect "late-connect" "TCP media connects four seconds late.",
    TcpDribble "tcp-dribble" "TCP is written in small pieces of odd sizes.",
    TcpGarbage "tcp-garbage" "Now and then a few bytes that belong to nothing stand between TCP frames.",
    PtsWrap "pts-wrap" "The 33-bit PTS wraps three seconds after the start.",
    RtpWrap "rtp-wrap" "The 32-bit RTP time and the sequence number wrap soon after the start.",
    PtsJump "pts-jump" "PTS and RTP time jump ahead by an hour three seconds after the start.",
    PtsJumpBack "pts-jump-back" "PTS and RTP time fall back by an hour three seconds after the start.",
    Loss "loss" "Packets are lost by a seeded pattern (UDP).",
    Reorder "reorder" "Packets arrive out of order by a seeded pattern (UDP).",
    Duplicates "duplicates" "Packets are sent twice by a seeded pattern (UDP).",
    Stragglers "stragglers" "Media goes on for two seconds after BYE.",
    ContentLengthZero "content-length-zero" "Content-Length says 0 although a body follows (SIP over UDP).",
    ExpiresInContact "expires-in-contact" "REGISTER has its Expires only in the Contact header.",
    NoQop "no-qop" "The digest answer ignores the qop that is offered.",
    NoContact "no-contact" "Requests and answers have no Contact.",
    CompactHeaders "compact-headers" "SIP headers have their compact names.",
    OddCase "odd-case" "Header names and content types are in lower case.",
    CrlfPings "crlf-pings" "Empty lines stand before and between SIP messages (TCP), or come as datagrams of their own (UDP).",
    NatMove "nat-move" "From the second keepalive on the device speaks from another port, without registering again.",
    Repeated200 "repeated-200" "The 200 to an INVITE is sent three more times, whether acknowledged or not.",
    InviteSilent "invite-silent" "INVITEs are never answered.",
    Invite486 "invite-486" "INVITEs are answered 486 Busy Here.",
    Invite488 "invite-488" "INVITEs are answered 488 Not Acceptable Here.",
    Bye481 "bye-481" "A BYE is answered 481.",
    MediaStatusSilent "media-status-silent" "The end of a playback is never announced.",
    IfameCmdOnly "ifame-cmd-only" "Key frames are sent for the misspelt IFameCmd of 2016 only, not for IFrameCmd.",
    Utf8 "utf8" "XML is declared and written as UTF-8.",
    CharsetLie "charset-lie" "XML declares UTF-8 but is written in GB 18030.",
    XmlAttributes "xml-attributes" "CmdType and SN are attributes of the root element.",
    CatalogPieces "catalog-pieces" "Catalog and RecordInfo answers have one item a message.",
    CatalogSilent "catalog-silent" "The catalog is never answered.",
    CatalogSumWrong "catalog-sum-wrong" "SumNum is larger than the number of items that ever come.",
}

/// A set of deviations. The default is none: the device follows the standard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Deviations(u64);

const _: () = assert!(Deviation::ALL.len() <= 64, "the set is a word of 64 bits");

impl Deviations {
    /// Nothing wrong.
    pub const NONE: Self = Self(0);

    /// Whether it is switched on.
    pub const fn has(self, deviation: Deviation) -> bool {
        self.0 >> deviation as u32 & 1 == 1
    }

    /// Switches one on.
    pub const fn insert(&mut self, deviation: Deviation) {
        self.0 |= 1 << deviation as u32;
    }

    /// This set and one more.
    pub const fn with(mut self, deviation: Deviation) -> Self {
        self.insert(deviation);
        self
    }

    /// Those that are switched on.
    pub fn iter(self) -> impl Iterator<Item = Deviation> {
        Deviation::ALL.iter().copied().filter(move |d| self.has(*d))
    }
}

impl Extend<Deviation> for Deviations {
    fn extend<I: IntoIterator<Item = Deviation>>(&mut self, iter: I) {
        iter.into_iter().for_each(|d| self.insert(d));
    }
}

impl FromIterator<Deviation> for Deviations {
    fn from_iter<I: IntoIterator<Item = Deviation>>(iter: I) -> Self {
        iter.into_iter().fold(Self::NONE, Self::with)
    }
}

impl fmt::Display for Deviation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No deviation has this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no deviation is called {0:?}")]
pub struct UnknownDeviation(String);

impl FromStr for Deviation {
    type Err = UnknownDeviation;

    fn from_str(name: &str) -> Result<Self, UnknownDeviation> {
        let found = Self::ALL.iter().copied().find(|d| d.name() == name);
        found.ok_or_else(|| UnknownDeviation(name.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_a_name_of_its_own_and_is_found_by_it() {
        for (i, deviation) in Deviation::ALL.iter().enumerate() {
            assert_eq!(deviation.name().parse(), Ok(*deviation));
            let only = Deviations::NONE.with(*deviation);
            assert_eq!(only.iter().collect::<Vec<_>>(), [Deviation::ALL[i]]);
        }
        assert!("map-wrong".parse::<Deviation>().is_err());
    }
}
