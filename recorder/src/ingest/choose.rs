//! Which of the streams a camera offers are pulled.

use corenvr_proto::{
    format::{MediaFormat, MediaKind},
    rtp::depacketize::Depacketizer,
    sdp::SessionDescription,
};

use crate::status::StreamInfo;

/// A stream to be pulled.
#[derive(Debug)]
pub(crate) struct ChosenStream {
    /// Index of its media line.
    pub media: usize,
    /// The format that is taken.
    pub format: MediaFormat,
    /// The media line offers other formats too, whose packets are not this one's.
    pub only_this_type: bool,
    /// Reads it.
    pub depacketizer: Depacketizer,
}

/// What is pulled from a camera.
#[derive(Debug)]
pub(crate) struct Chosen {
    pub video: ChosenStream,
    pub audio: Option<ChosenStream>,
    /// What else it offers, in words.
    pub not_recorded: Vec<String>,
}

/// A camera offers no video that can be recorded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no video that can be recorded; the camera offers {}", if offered.is_empty() { "nothing".to_owned() } else { offered.join(", ") })]
pub(crate) struct NoVideo {
    pub offered: Vec<String>,
}

/// Most entries of what is not recorded; further ones are left out.
const NOT_RECORDED_MAX: usize = 16;

/// Chooses the first video stream that can be recorded, and the first such audio stream if `audio` is wanted.
pub(crate) fn choose(sdp: &SessionDescription, audio: bool) -> Result<Chosen, NoVideo> {
    let (mut video, mut sound) = (None, None);
    let mut offered = Vec::new();
    let mut not_recorded = Vec::new();
    for (index, media) in sdp.media.iter().enumerate() {
        let slot = match media.kind {
            MediaKind::Video => &mut video,
            MediaKind::Audio if !sdp.is_backchannel(index) => &mut sound,
            _ => continue,
        };
        let kind = if media.kind == MediaKind::Video {
            "video"
        } else {
            "audio"
        };
        let names: Vec<_> = media.formats.iter().map(ToString::to_string).collect();
        offered.push(format!("{kind} {}", names.join(" or ")));
        if slot.is_some() {
            not_recorded.push(format!("a further {kind} stream, {}", names.join(" or ")));
            continue;
        }
        if media.kind == MediaKind::Audio && !audio {
            not_recorded.push(format!(
                "audio {}: switched off in the camera's settings",
                names.join(" or ")
            ));
            continue;
        }
        let mut refused = Vec::new();
        for format in &media.formats {
            match Depacketizer::new(format) {
                Ok(depacketizer) => {
                    *slot = Some(ChosenStream {
                        media: index,
                        format: format.clone(),
                        only_this_type: media.formats.len() > 1,
                        depacketizer,
                    });
                    break;
                }
                Err(unsupported) => refused.push(unsupported.to_string()),
            }
        }
        if slot.is_none() {
            not_recorded.extend(refused);
        }
    }
    not_recorded.truncate(NOT_RECORDED_MAX);
    offered.truncate(NOT_RECORDED_MAX);
    match video {
        Some(video) => Ok(Chosen {
            video,
            audio: sound,
            not_recorded,
        }),
        None => Err(NoVideo { offered }),
    }
}

impl Chosen {
    /// The streams as far as the description tells of them.
    pub fn infos(&self) -> Vec<StreamInfo> {
        let info = |stream: &ChosenStream, video: bool| match stream.depacketizer.parameters() {
            Some(parameters) => StreamInfo::from(&**parameters),
            None => StreamInfo {
                codec: stream.format.encoding.clone(),
                video,
                ..StreamInfo::default()
            },
        };
        let mut all = vec![info(&self.video, true)];
        all.extend(self.audio.as_ref().map(|a| info(a, false)));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sdp(lines: &str) -> SessionDescription {
        let text = format!("v=0\r\no=- 0 0 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n{lines}");
        SessionDescription::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn takes_the_first_of_each_kind_and_names_the_rest() {
        let offer = sdp(
            "m=audio 0 RTP/AVP 8\r\nm=video 0 RTP/AVP 98\r\na=rtpmap:98 VP9/90000\r\n\
            m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\nm=video 0 RTP/AVP 97\r\na=rtpmap:97 H264/90000\r\n\
            m=application 0 RTP/AVP 107\r\na=rtpmap:107 vnd.onvif.metadata/90000\r\n",
        );
        let chosen = choose(&offer, true).unwrap();
        assert_eq!((chosen.video.media, chosen.audio.unwrap().media), (2, 0));
        assert_eq!(chosen.not_recorded.len(), 2);
        assert!(chosen.not_recorded[0].contains("VP9"), "{:?}", chosen.not_recorded);
        assert!(choose(&offer, false).unwrap().audio.is_none());
    }

    #[test]
    fn says_what_a_camera_without_video_offers() {
        let error = choose(&sdp("m=audio 0 RTP/AVP 0\r\n"), true).unwrap_err();
        assert!(error.to_string().contains("PCMU/8000"), "{error}");
        let error = choose(&sdp("m=video 0 RTP/AVP 98\r\na=rtpmap:98 VP9/90000\r\n"), true).unwrap_err();
        assert!(error.to_string().contains("VP9/90000"), "{error}");
    }
}
