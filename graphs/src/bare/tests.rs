//! Mistakes of bare orders, each with its cell.

use super::*;
use crate::csv;

fn mistakes(text: &str) -> Vec<String> {
    let errors = Bare::new(csv::read(text).unwrap()).unwrap_err();
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn chunks_live_where_they_are_computed() {
    let places = |text| Bare::new(csv::read(text).unwrap()).unwrap().places().to_vec();
    assert_eq!(places("0F0,3F0,3B0,0B0\n1F0,2F0,2B0,1B0"), [0, 1, 1, 0]);
    assert_eq!(places("0F0,2F0\n1F0,3F0"), [0, 1, 0, 1]);
}

#[test]
fn mistakes_are_named_with_the_column_of_the_file() {
    assert_eq!(
        mistakes("0F0,,,0B0,0B0\n,1F0,1W0,1I0"),
        [
            "stage 0, cell 4: 0B0 does again what cell 3 has done",
            "stage 0, cell 4: 0B0 does again what cell 3 has done",
            "stage 1, cell 2: 1W0 comes before its 1I0",
        ]
    );
    assert_eq!(mistakes("0F0,1F0\n1F0,2F0"), ["stage 1, cell 0: 1F0 is not work of this stage"]);
    assert_eq!(mistakes("0F0,2F0"), ["chunk 1 stands nowhere, but a later one does"]);
    assert_eq!(mistakes("0F9,0B9"), ["microbatch 0 stands nowhere, but a later one does"]);
    assert_eq!(mistakes(""), ["the orders have no work"]);
}

#[test]
fn messages_that_nobody_sends_receives_or_may_send_are_named() {
    assert_eq!(
        mistakes("0SEND_F0,0F0,1SEND_F0,0SEND_F0,0SEND_F0\n1F0,1RECV_F0"),
        [
            "stage 0, cell 0: 0SEND_F0 comes before what it sends",
            "stage 0, cell 2: 1SEND_F0 is not this stage's to send",
            "stage 0, cell 4: 0SEND_F0 stands twice",
            "stage 1, cell 0: 1F0 comes before what it needs is received",
        ]
    );
    assert_eq!(
        mistakes("0F0,0SEND_F0,0RECV_B0\n1F0"),
        [
            "stage 1, cell 0: 1F0 comes before what it needs is received",
            "stage 0, cell 1: 0SEND_F0 is received nowhere",
            "stage 0, cell 2: 0RECV_B0 is sent nowhere",
        ]
    );
}
