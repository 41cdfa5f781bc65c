//! What cameras that come to us need to be met: the same for every shard.

use crate::{
    gb28181::{MediaPorts, Signalling},
    ingest::gb28181::Reach,
    rtmp::Publishers,
};

/// The ways in which cameras reach us. One that is absent is switched off, and its cameras say so.
#[derive(Clone, Default)]
pub struct Links {
    /// To the SIP server, and the ports for the media of its devices.
    pub gb28181: Option<Gb28181Links>,
    /// Where those who publish by RTMP arrive.
    pub rtmp: Option<Publishers>,
}

/// What GB28181 cameras need.
#[derive(Clone)]
pub struct Gb28181Links {
    /// The way to the SIP server.
    pub signalling: Signalling,
    /// First and last media port of all shards together.
    pub media_ports: (u16, u16),
}

/// The same as one shard has it.
#[derive(Clone, Default)]
pub(crate) struct ShardLinks {
    pub gb28181: Option<Reach>,
    pub rtmp: Option<Publishers>,
}

impl Links {
    /// The share of one shard.
    pub(crate) fn of_shard(self, shard: u16, shards: u16) -> ShardLinks {
        let reach = |links: Gb28181Links| Reach {
            signalling: links.signalling,
            ports: MediaPorts::new(links.media_ports, shard, shards),
        };
        ShardLinks {
            gb28181: self.gb28181.map(reach),
            rtmp: self.rtmp,
        }
    }
}
