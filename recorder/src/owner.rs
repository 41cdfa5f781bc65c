//! Which shard owns a camera.

use corenvr_media::CameraName;
use corenvr_shard::ShardId;

/// The owner of a camera: a pure function, so that every part of the process agrees without asking.
///
/// Rendezvous hashing: with another number of shards only the cameras move that have to. `wanted` is the operator's choice,
/// taken modulo `shards`. With no shards at all the answer is shard 0.
pub fn owner(name: &CameraName, shards: u16, wanted: Option<u16>) -> ShardId {
    let shards = shards.max(1);
    if let Some(wanted) = wanted {
        return ShardId(wanted % shards);
    }
    let best = (0..shards).max_by_key(|&shard| weight(name.as_str().as_bytes(), shard));
    ShardId(best.unwrap_or(0))
}

/// FNV-1a over name and shard, finished by a mixer: the plain hash changes too little with the last bytes.
fn weight(name: &[u8], shard: u16) -> u64 {
    mix(fnv(name) ^ u64::from(shard).wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xCBF2_9CE4_8422_2325, |hash, &b| {
        (hash ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01B3)
    })
}

fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// A number from 0 to 999 999 that is the camera's own, the same at every start: it spreads what cameras do periodically.
pub(crate) fn phase_millionths(name: &CameraName) -> u64 {
    mix(fnv(name.as_str().as_bytes())) % 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> impl Iterator<Item = CameraName> {
        (0..400).map(|i| CameraName::new(&format!("cam{i}")).unwrap())
    }

    #[test]
    fn spreads_evenly_and_moves_little() {
        let mut counts = [0; 4];
        let mut moved = 0;
        for name in names() {
            let shard = owner(&name, 4, None);
            counts[usize::from(shard.0)] += 1;
            let with_five = owner(&name, 5, None);
            moved += u32::from(with_five != shard);
            assert!(with_five == shard || with_five.0 == 4, "only to the new shard");
        }
        assert!(counts.iter().all(|c| (70..130).contains(c)), "{counts:?}");
        assert!((40..120).contains(&moved), "{moved}");
    }

    #[test]
    fn an_operator_decides_within_the_shards_there_are() {
        let name = CameraName::new("gate").unwrap();
        assert_eq!(owner(&name, 4, Some(2)), ShardId(2));
        assert_eq!(owner(&name, 4, Some(6)), ShardId(2));
        assert_eq!(owner(&name, 0, None), ShardId(0));
    }

    #[test]
    fn phases_fill_the_interval() {
        let mut tenths = [0; 10];
        for name in names() {
            tenths[(phase_millionths(&name) / 100_000) as usize] += 1;
        }
        assert!(tenths.iter().all(|c| (15..75).contains(c)), "{tenths:?}");
    }
}
