//! Everything comes out as it went in, bit for bit, and nothing else comes out.

use std::{fmt::Debug, sync::Arc, time::Instant};

use graphs::{
    address::Address,
    edge::Class,
    memory::{ActorMemory, Alive, Bytes, Fixed, Level, Peak, Reserve},
    plan::Side,
    share::Exchange,
};
use kernels::{mpi::Part as Arrived, squares::Squares};
use ops::{DType, Floats, Tensor, optim::State};

use super::{Damaged, Packing, Wire, packed, unpacked};
use crate::{
    board::Sight,
    message::Message,
    processes::frame::{Control, Frame},
    report::{Joined, Measured, Report, Seen, Updated},
    snapshot::{Piece, Pieces},
    trace::{Notes, Part},
    verdict::Verdict,
};

/// Random numbers, whose seed is printed.
struct Random(u64);

impl Random {
    fn new() -> Self {
        let seed = u64::from(std::process::id()) << 32 | u64::from(line!());
        println!("seed {seed}");
        Random(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, bound: u64) -> usize {
        (self.next() % bound) as usize
    }

    fn real(&mut self) -> f64 {
        self.next() as f64 / 1e15 - 9e3
    }

    fn floats(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.real() as f32).collect()
    }

    fn text(&mut self) -> String {
        format!("ä{}", self.next())
    }

    /// Any format, any shape, often without elements; half of them a part of a larger one.
    fn tensor(&mut self) -> Tensor {
        let shape = [1 + self.below(5), self.below(4)];
        let size = shape[0] * shape[1];
        let whole = match self.below(3) {
            0 => Tensor::from_f32(&shape, self.floats(size)),
            1 => Tensor::rounded(&shape, self.floats(size), DType::Bf16),
            _ => Tensor::from_i32(&shape, (0..size).map(|_| self.next() as i32).collect()),
        };
        let first = self.below(shape[0] as u64 + 1);
        if self.below(2) == 0 { whole } else { whole.rows(first..shape[0]) }
    }

    fn sum(&mut self) -> Floats {
        let len = self.below(9);
        self.floats(len).into()
    }

    fn address(&mut self) -> Address {
        let side = [Side::Stage, Side::Experts][self.below(2)];
        let [replica, stage, rank] = [0; 3].map(|_| self.below(99));
        Address { replica, stage, rank, side }
    }

    fn bytes(&mut self) -> Bytes {
        let mut bytes = Bytes::default();
        Class::ALL.into_iter().for_each(|class| *bytes.get_mut(class) = self.next());
        bytes
    }

    fn peak(&mut self) -> Peak {
        Peak { bytes: self.next(), by_class: self.bytes(), instruction: self.below(99) }
    }

    fn exchange(&mut self) -> Exchange {
        let [gradients, momentum, updates, values] = [0; 4].map(|_| self.next());
        Exchange { gradients, momentum, updates, values }
    }

    fn memory(&mut self) -> ActorMemory {
        let [parameters, masters, states, inputs, host] = [0; 5].map(|_| self.next());
        let [messages, reduction, update] = [0; 3].map(|_| self.next());
        let class = Class::ALL[self.below(Class::COUNT as u64)];
        ActorMemory {
            address: self.address(),
            fixed: Fixed { parameters, masters, states, inputs, host },
            reserve: Reserve { messages, reduction, update },
            peak: self.peak(),
            host: self.peak(),
            number: self.below(99),
            alive: vec![Alive { class, flights: self.below(9), bytes: self.next() }],
            levels: vec![Level { high: self.next(), after: self.next() }; self.below(3)],
        }
    }

    fn notes(&mut self) -> Notes {
        let [replica, stage, rank, a, b] = [0; 5].map(|_| self.below(9));
        let (begin, end) = (self.next(), self.next());
        Notes {
            replica,
            stage,
            rank,
            experts: self.below(2) == 0,
            instructions: vec![(begin, end); a],
            arrivals: vec![(a, b, stage, begin); b],
            travels: vec![(b, a, rank, end, begin)],
            copies: vec![(a, b, rank, true, begin, end), (b, b, a, false, end, end)],
            sums: vec![(end, begin)],
            phase: vec![(Part::Gather, begin, end), (Part::Reduce, end, end), (Part::Update, 1, 2)],
        }
    }

    fn piece(&mut self, state: State) -> Piece {
        let (master, is_audited) = (self.sum().to_host(), self.below(2) == 0);
        Piece { master, state, gradient: is_audited.then(|| self.sum().to_host()) }
    }

    fn messages(&mut self) -> Vec<Message> {
        let [microbatch, channel, peer, parameter, from] = [0; 5].map(|_| self.below(999));
        let tensors = (0..self.below(4)).map(|_| self.tensor()).collect();
        let verdict = Verdict {
            lr: self.real() as f32,
            scale: f32::NAN,
            max_logits: vec![self.floats(3), vec![], vec![f32::NEG_INFINITY]],
            loads: vec![vec![], vec![self.next()]],
        };
        vec![
            Message::Step,
            Message::Unit { microbatch, tokens: self.tensor(), targets: self.tensor() },
            Message::Cargo { channel, microbatch, peer, tensors, travelled: None },
            Message::Credit { channel, peer },
            Message::Gradient { parameter, slice: peer, from, sum: self.sum(), travelled: None },
            Message::Verdict(Arc::new(verdict)),
            Message::Momentum { parameter, from, direction: self.sum() },
            Message::Update { parameter, rows: self.tensor() },
            Message::Weight { parameter, from, value: self.tensor() },
            Message::Snapshot,
        ]
    }

    fn reports(&mut self) -> Vec<Report> {
        let from = self.address();
        let squares = Squares::of_rows(&self.floats(6), 2);
        let broken = Squares::of_rows(&[f32::NAN], 1);
        let joined = |squares, hash| Joined { parameter: 3, squares, hash };
        let seen = Seen {
            losses: vec![(self.below(9), self.real(), self.below(99)), (1, f64::NAN, 0)],
            max_logits: vec![(self.below(9), self.floats(4))],
            loads: vec![(self.below(9), vec![self.next(), 0])],
            busy_seconds: self.real(),
            product_seconds: self.real(),
            copy_wait_seconds: -0.0,
        };
        let measured = Measured {
            actor: self.memory(),
            trail: vec![self.bytes()],
            rows: vec![((self.below(9), 1, 2), vec![self.next()])],
        };
        let done = Updated {
            parameters: vec![(self.below(9), [self.below(256) as u8; 32])],
            sent: self.exchange(),
            received: self.exchange(),
            joined: self.next(),
            newton_schulz: self.below(99),
        };
        let adamw = State::AdamW { first: self.sum(), second: self.sum(), step: [7.0] };
        let muon = State::Muon { momentum: self.sum() };
        let states = [State::None, muon, adamw].into_iter().enumerate();
        let pieces = states.map(|(row, state)| ((row, self.below(99)), self.piece(state)));
        let pieces = Pieces::from_iter(pieces.collect::<Vec<_>>());
        let (grown, held, limit) = (self.next(), self.next(), self.next());
        let class = Class::ALL[self.below(Class::COUNT as u64)];
        let [actor, action, cause] = [0; 3].map(|_| self.text());
        vec![
            Report::Loaded {
                position: serde_json::json!({ "at": self.next(), "of": [self.text()] }),
            },
            Report::Computed { from, seen, memory: Box::new(measured) },
            Report::Joined {
                from,
                gradients: vec![joined(squares, None), joined(broken, Some([5; 32]))],
            },
            Report::Updated { from, done: Box::new(done.clone()), notes: Some(self.notes()) },
            Report::Updated { from, done: Box::new(done), notes: None },
            Report::Snapshot { from, pieces },
            Report::Full { from, action: action.clone(), class, grown, held, limit },
            Report::Failed { actor, action, cause, is_full: self.below(2) == 0 },
        ]
    }

    fn controls(&mut self) -> Vec<Control> {
        let (cluster, number, text) = (self.next(), self.next(), self.text());
        let story = vec![self.text(), String::new()];
        let sight = Sight { moves: self.next(), is_working: true, story };
        vec![
            Control::Ready { cluster, alike: vec![(text.clone(), self.text())] },
            Control::End { cluster },
            Control::GoOn { checkpoint: format!("/runs/{text}").into() },
            Control::Leave { code: 130 },
            Control::Refused { code: 14, text },
            Control::Answer { number, sight },
        ]
    }
}

/// What another process gets of it.
fn sent<T: Wire>(packing: &Packing) -> Result<T, Damaged> {
    let part = |bytes: &bytes::Bytes| {
        let mut part = Arrived::new(bytes.len());
        part.bytes_mut().copy_from_slice(bytes);
        part
    };
    unpacked(&packing.head, packing.parts.iter().map(part).collect())
}

fn check<T: Wire + Debug>(what: T) {
    let text = format!("{what:?}");
    let first = packed(what);
    let there: T = sent(&first).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!(format!("{there:?}"), text);
    let again = packed(there);
    assert_eq!(first.head, again.head, "{text}");
    assert_eq!(first.parts, again.parts, "{text}");
}

#[test]
fn messages_reports_and_controls_come_out_as_they_went_in() {
    let mut random = Random::new();
    for _ in 0..50 {
        random.messages().into_iter().for_each(check);
        random.reports().into_iter().for_each(check);
        random.controls().into_iter().for_each(check);
        let (cluster, to) = (random.next(), random.address());
        let message = random.messages().remove(2);
        check(Frame::Message { cluster, to, message });
        check(Frame::Report { cluster, report: random.reports().remove(3) });
        check(Frame::Ask { number: cluster });
    }
}

#[test]
fn an_instant_comes_out_late_by_the_way_of_the_message_and_never_early() {
    let (begin, end) = (Instant::now(), Instant::now());
    let travelled = Some((begin, end));
    let sum = Floats::from(vec![1.5]);
    let sent_sum = Message::Gradient { parameter: 0, slice: 0, from: 0, sum, travelled };
    let Message::Gradient { travelled: Some((first, last)), .. } = sent(&packed(sent_sum)).unwrap()
    else {
        panic!("another message");
    };
    assert!(begin <= first && end <= last && last <= Instant::now());
    let record = Message::Record { since: begin };
    let Message::Record { since } = sent(&packed(record)).unwrap() else { panic!("another") };
    assert!(begin <= since && since <= Instant::now());
}

#[test]
fn tensors_are_not_copied_on_their_way_out() {
    let whole = Tensor::from_f32(&[4, 2], vec![0.5; 8]);
    let rows = whole.rows(1..3);
    let packing = packed(Message::Update { parameter: 1, rows: rows.clone() });
    assert_eq!(packing.parts[0].as_ptr(), rows.bytes().as_ptr());
    let values = vec![2.5_f32; 64];
    let place = values.as_ptr() as usize;
    let packing = packed(Floats::from(values));
    assert_eq!(packing.parts[0].as_ptr() as usize, place);
}

#[test]
fn what_is_cut_off_or_too_long_is_damaged() {
    let mut random = Random::new();
    for message in random.messages() {
        let Packing { head, parts } = packed(message);
        for end in 0..head.len() {
            let cut = Packing { head: head[..end].to_vec(), parts: parts.clone() };
            assert!(sent::<Message>(&cut).is_err());
        }
        let longer = Packing { head: [&head[..], &[0]].concat(), parts: parts.clone() };
        assert_eq!(sent::<Message>(&longer).err(), Some(Damaged));
        let more = [&parts[..], &[bytes::Bytes::from_static(b"more")]].concat();
        assert_eq!(sent::<Message>(&Packing { head, parts: more }).err(), Some(Damaged));
    }
    let other = sent::<Report>(&Packing { head: vec![200], parts: vec![] });
    assert_eq!(other.err(), Some(Damaged));
}
