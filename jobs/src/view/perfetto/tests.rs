//! Traces read back by a reader that knows nothing of the writer.

use std::collections::BTreeMap;

use graphs::{
    bare::Bare,
    schedule::{Pipeline, Schedule},
    simulate::{Costs, timeline},
};

use super::*;

/// The value of a field.
#[derive(Clone, Debug)]
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// All fields of a message.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Value<'_>)> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let (first, rest) = bytes.split_first().expect("a varint ends");
            *bytes = rest;
            value |= u64::from(first & 0x7f) << shift;
            if first & 0x80 == 0 {
                break;
            }
        }
        value
    }
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let value = match key & 7 {
            0 => Value::Number(varint(&mut bytes)),
            1 => {
                let (own, rest) = bytes.split_at(8);
                bytes = rest;
                Value::Number(u64::from_le_bytes(own.try_into().unwrap()))
            }
            2 => {
                let length = varint(&mut bytes) as usize;
                let (own, rest) = bytes.split_at(length);
                bytes = rest;
                Value::Bytes(own)
            }
            wire => panic!("wire type {wire} is not written"),
        };
        fields.push((key >> 3, value));
    }
    fields
}

fn number(fields: &[(u64, Value<'_>)], field: u64) -> Option<u64> {
    fields.iter().find_map(|(name, value)| match value {
        Value::Number(number) if *name == field => Some(*number),
        _ => None,
    })
}

fn bytes<'a>(fields: &[(u64, Value<'a>)], field: u64) -> Option<&'a [u8]> {
    fields.iter().find_map(|(name, value)| match value {
        Value::Bytes(bytes) if *name == field => Some(*bytes),
        _ => None,
    })
}

fn scene() -> Scene {
    let pipeline = Pipeline { stages: 4, virtual_stages: 1, microbatches: 8 };
    let bare = Bare::of(&Schedule::OneFOneB, pipeline).unwrap();
    let costs =
        Costs { forward: 1.0, input: 1.0, weight: 1.0, comm: 0.5, handling: 0.0, pair: None };
    let step = Step {
        name: "1F1B".into(),
        unit: Unit::Units,
        timeline: timeline(&bare, &costs).unwrap(),
        measured: None,
        memory: None,
        stages: Vec::new(),
        facts: Vec::new(),
    };
    Scene { steps: vec![step], ..Scene::default() }
}

#[test]
fn every_span_is_a_slice_that_ends_and_every_flow_arrives() {
    let scene = scene();
    let trace = write(&scene);
    let (mut open, mut slices) = (BTreeMap::new(), Vec::new());
    let (mut out, mut into, mut counters, mut tracks) = (Vec::new(), Vec::new(), 0, 0);
    for (field, packet) in fields(&trace) {
        let (1, Value::Bytes(packet)) = (field, packet) else { panic!("a packet") };
        let packet = fields(packet);
        assert_eq!(number(&packet, 10), Some(1), "one writer");
        tracks += usize::from(bytes(&packet, 60).is_some());
        let Some(event) = bytes(&packet, 11).map(fields) else { continue };
        let (time, track) = (number(&packet, 8).unwrap(), number(&event, 11).unwrap());
        match number(&event, 9).unwrap() {
            1 => {
                let name = String::from_utf8(bytes(&event, 23).unwrap().to_vec()).unwrap();
                assert!(open.insert(track, (name, time)).is_none(), "slices overlap");
            }
            2 => {
                let (name, start) = open.remove(&track).expect("a slice that began");
                slices.push((name, start, time));
            }
            _ => counters += 1,
        }
        let flows = |field: u64| {
            event.iter().filter_map(move |(name, value)| match value {
                Value::Number(flow) if *name == field => Some(*flow),
                _ => None,
            })
        };
        out.extend(flows(47));
        into.extend(flows(48));
    }
    assert!(open.is_empty());
    let spans = scene.steps[0].timeline.ranks.iter().flatten();
    let expected = spans.map(|span| {
        let name = format!("{}{}", letter(span.task.kind), span.task.microbatch);
        (name, (1e3 * span.start) as u64, (1e3 * span.end) as u64)
    });
    let mut expected: Vec<_> = expected.collect();
    expected.sort();
    slices.sort();
    assert_eq!(slices, expected);
    out.sort_unstable();
    into.sort_unstable();
    assert!(!out.is_empty() && out == into);
    assert_eq!(counters, 4 * 16, "each activation comes and goes");
    assert!(tracks > 4 * 2, "{tracks}");
}
