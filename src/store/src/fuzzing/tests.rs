//! The fuzzers' entry points on mutated files, for machines without a fuzzer.

use proptest::prelude::*;

use super::*;
use crate::mkv::{
    samples::{START, header_av, stream},
    tests::{sealed, write},
};

fn file() -> Vec<u8> {
    let frames = stream(START, 2);
    let flushes: Vec<_> = frames.chunks(40).collect();
    let (out, _, w) = write(header_av(), &flushes);
    sealed(out, w)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn mutated_files_never_panic(
        edits in prop::collection::vec((prop_oneof![0usize..600, 4096usize..4200, 0usize..60_000], any::<u8>()), 1..6),
        cut in prop::option::of(0usize..60_000),
    ) {
        let mut data = file();
        for (at, byte) in edits {
            let n = data.len();
            data[at % n] = byte;
        }
        if let Some(cut) = cut {
            data.truncate(cut);
        }
        header(&data);
        cluster(&data);
        recover(&data);
        import(&data);
    }

    #[test]
    fn any_bytes_never_panic(data in prop::collection::vec(any::<u8>(), 0..300)) {
        header(&data);
        cluster(&data);
        recover(&data);
        table(&data);
        import(&data);
    }
}

#[test]
fn a_claimed_size_takes_no_memory() {
    // A cluster that says 16 MiB in a file of 8 KiB, and a header element that says a gigabyte.
    let mut data = file();
    data.truncate(8192);
    data[4096 + 4..4096 + 12].copy_from_slice(&0x0100_0000_00FF_FFF0u64.to_be_bytes());
    recover(&data);
    let at = data.windows(4).position(|w| w == [0x16, 0x54, 0xAE, 0x6B]).unwrap();
    data[at + 4..at + 9].copy_from_slice(&[0x08, 0x40, 0, 0, 0]);
    header(&data);
    assert!(header::parse(&data).is_err());
}
