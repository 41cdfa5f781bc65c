//! The camera control command: 8 bytes, written as 16 hex digits (GB/T 28181 annex A.3).

use std::fmt;

/// The first byte of every command.
const HEAD: u8 = 0xA5;
/// Version 1.0 (0) in the upper half, in the lower half the sum of the three half bytes before it.
const VERSION: u8 = 0x0F;
/// The lower byte of the address; devices are addressed by `DeviceID` and ignore it.
const ADDRESS: u8 = 0x01;

/// What a camera is to do. It goes on until the next command: movements end by [`PtzCommand::STOP`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PtzCommand {
    /// Turn, tilt and zoom (A.3.2).
    Move {
        /// Sideways.
        pan: Option<Pan>,
        /// Up or down.
        tilt: Option<Tilt>,
        /// Nearer or farther.
        zoom: Option<Zoom>,
        /// 0 slow to 255 fast.
        pan_speed: u8,
        /// 0 slow to 255 fast.
        tilt_speed: u8,
        /// 0 slow to 15 fast; more counts as 15.
        zoom_speed: u8,
    },
    /// Focus and iris by hand (A.3.3).
    Lens {
        /// Focus.
        focus: Option<Focus>,
        /// Iris.
        iris: Option<Iris>,
        /// 0 slow to 255 fast.
        focus_speed: u8,
        /// 0 slow to 255 fast.
        iris_speed: u8,
    },
    /// Positions that the camera keeps (A.3.4).
    Preset {
        /// What to do with it.
        action: PresetAction,
        /// 1 to 255; 0 is reserved.
        number: u8,
    },
}

/// Sideways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Pan {
    Right,
    Left,
}

/// Up or down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Tilt {
    Down,
    Up,
}

/// Angle of view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Zoom {
    /// Larger.
    In,
    /// Smaller.
    Out,
}

/// Plane of focus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Focus {
    Far,
    Near,
}

/// Light.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Iris {
    Open,
    Close,
}

/// What happens to a preset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PresetAction {
    /// The present position becomes it.
    Set,
    /// Go there.
    Call,
    /// Forget it.
    Delete,
}

/// A text is no command that is understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum PtzError {
    #[error("a PTZ command is 16 hex digits that start with A5")]
    Form,
    #[error("the check sum of the PTZ command is wrong")]
    Checksum,
    #[error("the PTZ command asks for opposite movements at once")]
    Contradiction,
    #[error("the PTZ command {0:#04x} is not known")]
    Unknown(u8),
}

/// Picks between two opposite bits; the first is the lower one.
fn either<T>(bits: u8, low: (u8, T), high: (u8, T)) -> Result<Option<T>, PtzError> {
    match (bits & low.0 != 0, bits & high.0 != 0) {
        (true, true) => Err(PtzError::Contradiction),
        (true, false) => Ok(Some(low.1)),
        (false, true) => Ok(Some(high.1)),
        (false, false) => Ok(None),
    }
}

impl PtzCommand {
    /// Ends every movement.
    pub const STOP: Self = Self::Move {
        pan: None,
        tilt: None,
        zoom: None,
        pan_speed: 0,
        tilt_speed: 0,
        zoom_speed: 0,
    };

    /// Ends every movement of focus and iris.
    pub const STOP_LENS: Self = Self::Lens {
        focus: None,
        iris: None,
        focus_speed: 0,
        iris_speed: 0,
    };

    /// The 8 bytes.
    pub fn to_bytes(self) -> [u8; 8] {
        let (command, data1, data2, data3) = match self {
            Self::Move {
                pan,
                tilt,
                zoom,
                pan_speed,
                tilt_speed,
                zoom_speed,
            } => {
                let pan = pan.map_or(0, |p| if p == Pan::Right { 0x01 } else { 0x02 });
                let tilt = tilt.map_or(0, |t| if t == Tilt::Down { 0x04 } else { 0x08 });
                let zoom = zoom.map_or(0, |z| if z == Zoom::In { 0x10 } else { 0x20 });
                (pan | tilt | zoom, pan_speed, tilt_speed, zoom_speed.min(15) << 4)
            }
            Self::Lens {
                focus,
                iris,
                focus_speed,
                iris_speed,
            } => {
                let focus = focus.map_or(0, |f| if f == Focus::Far { 0x01 } else { 0x02 });
                let iris = iris.map_or(0, |i| if i == Iris::Open { 0x04 } else { 0x08 });
                (0x40 | focus | iris, focus_speed, iris_speed, 0)
            }
            Self::Preset { action, number } => {
                let command = match action {
                    PresetAction::Set => 0x81,
                    PresetAction::Call => 0x82,
                    PresetAction::Delete => 0x83,
                };
                (command, 0, number, 0)
            }
        };
        let mut bytes = [HEAD, VERSION, ADDRESS, command, data1, data2, data3, 0];
        bytes[7] = checksum(bytes);
        bytes
    }

    /// Reads 16 hex digits. The address does not count.
    pub fn parse(text: &str) -> Result<Self, PtzError> {
        let bytes = from_hex(text.trim()).ok_or(PtzError::Form)?;
        let [head, _, _, command, data1, data2, data3, sum] = bytes;
        if head != HEAD {
            return Err(PtzError::Form);
        }
        if sum != checksum(bytes) {
            return Err(PtzError::Checksum);
        }
        match command {
            0x00..=0x3F => Ok(Self::Move {
                pan: either(command, (0x01, Pan::Right), (0x02, Pan::Left))?,
                tilt: either(command, (0x04, Tilt::Down), (0x08, Tilt::Up))?,
                zoom: either(command, (0x10, Zoom::In), (0x20, Zoom::Out))?,
                pan_speed: data1,
                tilt_speed: data2,
                zoom_speed: data3 >> 4,
            }),
            0x40..=0x4F => Ok(Self::Lens {
                focus: either(command, (0x01, Focus::Far), (0x02, Focus::Near))?,
                iris: either(command, (0x04, Iris::Open), (0x08, Iris::Close))?,
                focus_speed: data1,
                iris_speed: data2,
            }),
            0x81..=0x83 => Ok(Self::Preset {
                action: match command {
                    0x81 => PresetAction::Set,
                    0x82 => PresetAction::Call,
                    _ => PresetAction::Delete,
                },
                number: data2,
            }),
            _ => Err(PtzError::Unknown(command)),
        }
    }
}

impl fmt::Display for PtzCommand {
    /// 16 hex digits in upper case.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_bytes().iter().try_for_each(|b| write!(f, "{b:02X}"))
    }
}

/// The sum of the first seven bytes.
fn checksum(bytes: [u8; 8]) -> u8 {
    bytes.iter().take(7).fold(0, |sum: u8, b| sum.wrapping_add(*b))
}

fn from_hex(text: &str) -> Option<[u8; 8]> {
    if text.len() != 16 {
        return None;
    }
    let mut bytes = [0; 8];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        for digit in pair {
            *byte = *byte << 4 | char::from(*digit).to_digit(16)? as u8;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn movement(pan: Option<Pan>, tilt: Option<Tilt>, zoom: Option<Zoom>) -> PtzCommand {
        PtzCommand::Move {
            pan,
            tilt,
            zoom,
            pan_speed: 0x1F,
            tilt_speed: 0x20,
            zoom_speed: 15,
        }
    }

    #[test]
    fn commands_are_the_bytes_of_the_standard() {
        assert_eq!(PtzCommand::STOP.to_string(), "A50F0100000000B5");
        assert_eq!(PtzCommand::STOP_LENS.to_string(), "A50F0140000000F5");
        assert_eq!(movement(Some(Pan::Right), None, None).to_string(), "A50F01011F20F0E5");
        let all = movement(Some(Pan::Left), Some(Tilt::Up), Some(Zoom::Out));
        assert_eq!(all.to_bytes()[3], 0x2A);
        assert_eq!(movement(None, Some(Tilt::Down), Some(Zoom::In)).to_bytes()[3], 0x14);
        let call = PtzCommand::Preset {
            action: PresetAction::Call,
            number: 5,
        };
        assert_eq!(call.to_bytes(), [0xA5, 0x0F, 1, 0x82, 0, 5, 0, 0x3C]);
        let lens = PtzCommand::Lens {
            focus: Some(Focus::Near),
            iris: Some(Iris::Close),
            focus_speed: 0x20,
            iris_speed: 0x30,
        };
        assert_eq!(lens.to_bytes()[3..6], [0x4A, 0x20, 0x30]);
    }

    #[test]
    fn what_is_written_reads_the_same() {
        let mut count = 0;
        for command in 0..=0xFF {
            let mut bytes = [HEAD, VERSION, 7, command, 1, 2, 0x30, 0];
            bytes[7] = checksum(bytes);
            let hex = bytes.map(|b| format!("{b:02x}")).concat();
            let Ok(read) = PtzCommand::parse(&hex) else {
                continue;
            };
            assert_eq!(PtzCommand::parse(&read.to_string()), Ok(read));
            assert_eq!(read.to_bytes()[3], command);
            count += 1;
        }
        // Three choices each of pan, tilt and zoom, of focus and iris; three of presets.
        assert_eq!(count, 27 + 9 + 3);
    }

    #[test]
    fn nonsense_is_refused() {
        assert_eq!(PtzCommand::parse("A50F0100000000B6"), Err(PtzError::Checksum));
        assert_eq!(PtzCommand::parse("A50F0103000000B8"), Err(PtzError::Contradiction));
        assert_eq!(PtzCommand::parse("A50F01890000003E"), Err(PtzError::Unknown(0x89)));
        for text in [
            "",
            "A5",
            "B50F0100000000C5",
            "A50F0100000000G5",
            "A50F0100000000B5B5",
            "\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}",
        ] {
            assert_eq!(PtzCommand::parse(text), Err(PtzError::Form), "{text}");
        }
    }
}
