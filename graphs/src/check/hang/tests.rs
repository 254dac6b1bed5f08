//! Orders that hang on purpose, and files of others that must and must not.

use std::path::Path;

use super::*;
use crate::{csv, schedule::tests::golden};

fn story(text: &str, credits: usize) -> Option<Vec<String>> {
    let bare = Bare::new(csv::read(text).unwrap()).unwrap();
    hang(&bare, credits).err().map(|hang| hang.story)
}

#[test]
fn a_ring_is_told_rank_by_rank() {
    // Each rank wants the other's result of the microbatch that the other does last.
    assert_eq!(story("0F0,0F1,3F0,3F1\n1F0,2F0,1F1,2F1", 1), None);
    assert_eq!(
        story("0F0,0F1,3F1,3F0\n1F0,2F0,1F1,2F1", 1).unwrap(),
        [
            "rank 0, cell 2, 3F1: waits for the activations of chunk 2 for microbatch 1 from \
             rank 1",
            "rank 1, cell 3, 2F1: waits to send the activations of chunk 2 for microbatch 1 to \
             rank 0 (credits: 1)",
            "with credits: 2 they would run",
        ]
    );
    let crossed = "0F0,3F0,0F1,3F1\n1F1,1F0,2F0,2F1";
    assert_eq!(
        story(crossed, 1).unwrap(),
        [
            "rank 0, cell 1, 3F0: waits for the activations of chunk 2 for microbatch 0 from \
             rank 1",
            "rank 1, cell 0, 1F1: waits for the activations of chunk 0 for microbatch 1 from \
             rank 0",
            "no credit can break the ring: the order of work itself waits for itself",
        ]
    );
}

#[test]
fn a_pair_that_needs_its_own_result_never_starts() {
    assert_eq!(
        story("(0F0;0B0)OVERLAP_F_B", 9).unwrap(),
        [
            "rank 0, cell 0, (0F0;0B0)OVERLAP_F_B: a pair starts when both can, and this one \
             needs 0F0, which does not stand before it",
            "no credit can break the ring: the order of work itself waits for itself",
        ]
    );
}

#[test]
fn sends_that_cross_need_a_credit() {
    let text = "0F0,0SEND_F0,0F1,0SEND_F1,3RECV_F0,3F0,3RECV_F1,3F1\n\
                1RECV_F0,1F0,2F0,2SEND_F0,1RECV_F1,1F1,2F1,2SEND_F1";
    assert_eq!(story(text, 1), None);
    assert_eq!(
        story(text, 0).unwrap(),
        [
            "rank 0, cell 3, 0SEND_F1: waits to send the activations of chunk 0 for microbatch 1 \
             to rank 1 (credits: 0)",
            "rank 1, cell 3, 2SEND_F0: waits to send the activations of chunk 2 for microbatch 0 \
             to rank 0 (credits: 0)",
            "with credits: 1 they would run",
        ]
    );
}

/// All files of a folder with this ending, folders within not.
fn files(folder: &Path, ending: &str) -> Vec<std::path::PathBuf> {
    let all = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    all.filter(|path| path.to_str().is_some_and(|path| path.ends_with(ending))).collect()
}

#[test]
fn files_of_others_are_accepted() {
    let Some(root) = golden("") else { return };
    let mut accepted = 0;
    for folder in [
        "pytorch-2.15-generated",
        "pytorch-test-artifacts",
        "torchtitan",
        "megatron",
        "zero-bubble",
        "zero-bubble/paper",
    ] {
        for path in files(&root.join(folder), ".csv") {
            let text = std::fs::read_to_string(&path).unwrap();
            let rows = csv::read(&text).unwrap_or_else(|e| panic!("{}: {e:?}", path.display()));
            let bare = Bare::new(rows).unwrap_or_else(|e| panic!("{}: {e:?}", path.display()));
            assert!(fewest_credits(&bare).is_ok(), "{}", path.display());
            accepted += 1;
        }
    }
    assert!(accepted > 300, "accepted only {accepted}");
}

/// Why a file is refused with so many credits, first reason first.
fn refusal(path: &Path, credits: usize) -> Option<String> {
    let rows = csv::read(&std::fs::read_to_string(path).unwrap()).unwrap();
    match Bare::new(rows) {
        Err(errors) => Some(errors.iter().map(|e| e.to_string() + "\n").collect()),
        Ok(bare) => hang(&bare, credits).err().map(|hang| hang.to_string()),
    }
}

#[test]
fn files_that_must_be_refused_are_for_the_right_reason() {
    let Some(folder) = golden("must_reject") else { return };
    let check = |name: &str, credits, reason: &str| {
        let said = refusal(&folder.join(name), credits).unwrap_or_default();
        assert!(said.contains(reason), "{name}: {said}");
    };
    check("missing_forward.csv", 1, "stage 1, cell 2: 1B1 comes before its 1F1");
    check("weight_before_input.csv", 1, "stage 0, cell 1: 0W0 comes before its 0I0");
    check("duplicate_forward.csv", 1, "stage 0, cell 1: 0F0 does again what cell 0 has done");
    let paired = "vpp_paired_without_plus1_p4_v2_mb16.csv";
    check(paired, 1, "rank 3, cell 4, (7F0;7B0)OVERLAP_F_B: a pair starts when both can");
    check(paired, 16, "no credit can break the ring");
    check("crossing_sends_2rank.csv", 0, "rank 0, cell 3, 0SEND_F1: waits to send");
    let crossing = refusal(&folder.join("crossing_sends_2rank.csv"), 1);
    assert_eq!(crossing, None, "cut for size, and forward only");
}

#[test]
fn the_microbatch_too_many_of_pytorch_2_15_is_found() {
    let Some(folder) = golden("pytorch-2.15-generated/invalid") else { return };
    let all = files(&folder, ".csv");
    assert_eq!(all.len(), 9);
    for path in all {
        let last = path.to_str().unwrap().split("_pp").nth(1).unwrap().split('_').next().unwrap();
        let last = last.parse::<usize>().unwrap() - 1;
        let said = refusal(&path, 1).unwrap();
        let expected = format!("stage {last}: {last}F0 is missing");
        assert!(said.contains(&expected), "{}: {said}", path.display());
    }
}
