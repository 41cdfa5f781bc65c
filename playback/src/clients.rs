//! How players differ: one table, by User-Agent. Nothing else in this crate asks who the client is.

/// How much of a range a client is sent ahead of its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Burst {
    /// So many microseconds at once, then at the pace of the footage.
    Micros(i64),
    /// Everything, as fast as the client reads; over UDP, where nothing slows a sender down, so many microseconds.
    UnpacedOverTcp(i64),
}

/// What one kind of client needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    /// A part of its User-Agent.
    pub agent: &'static str,
    /// How it starts.
    pub burst: Burst,
    /// So many pictures come at once besides, however long they are shown: what it looks at before it shows anything.
    pub burst_pictures: u32,
    /// Play without a Range goes on from a key frame at least this far back: it drops what it had buffered at a pause.
    pub resume_back_micros: i64,
    /// It takes a Scale or Speed in the reply for an order to change its own clock as well.
    pub silent_about_rate: bool,
}

/// Who is in no row below: bursts of more than a second make some players lose frames, and none needs more than this.
const OTHER: Client = Client {
    agent: "",
    burst: Burst::Micros(300_000),
    burst_pictures: 0,
    resume_back_micros: 0,
    silent_about_rate: false,
};

/// The first row whose text is in the User-Agent counts. `libmpv` comes before `Lavf`: mpv's own name is the more telling one.
const TABLE: [Client; 4] = [
    // Has its own speed control and pauses by not reading.
    Client {
        agent: "libmpv",
        burst: Burst::UnpacedOverTcp(2_000_000),
        burst_pictures: 30,
        ..OTHER
    },
    // Probes the first two seconds, and 30 pictures where those are few, before it shows anything.
    Client {
        agent: "Lavf",
        burst: Burst::Micros(2_000_000),
        burst_pictures: 30,
        ..OTHER
    },
    Client {
        agent: "LibVLC",
        resume_back_micros: 500_000,
        ..OTHER
    },
    Client {
        agent: "GStreamer",
        silent_about_rate: true,
        ..OTHER
    },
];

impl Client {
    /// What is known of the client that calls itself this.
    pub fn of(user_agent: &str) -> Self {
        TABLE
            .into_iter()
            .find(|c| user_agent.contains(c.agent))
            .unwrap_or(OTHER)
    }

    /// How far ahead it is sent, in microseconds; `None` for as fast as it reads.
    pub const fn burst_micros(&self, tcp: bool) -> Option<i64> {
        match self.burst {
            Burst::UnpacedOverTcp(_) if tcp => None,
            Burst::Micros(us) | Burst::UnpacedOverTcp(us) => Some(us),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn players_are_told_apart_by_what_they_send() {
        let burst = |agent, tcp| Client::of(agent).burst_micros(tcp);
        assert_eq!(
            burst("LibVLC/3.0.24 (LIVE555 Streaming Media v2016.11.28)", true),
            Some(300_000)
        );
        assert_eq!(burst("libmpv", true), None);
        assert_eq!(burst("libmpv", false), Some(2_000_000));
        assert_eq!(burst("Lavf59.27.100", true), Some(2_000_000));
        assert_eq!(burst("GStreamer/1.22.0", false), Some(300_000));
        assert_eq!(burst("", true), Some(300_000));
        assert_eq!(Client::of("LibVLC/3").resume_back_micros, 500_000);
        assert!(Client::of("GStreamer/1.22.0").silent_about_rate);
    }
}
