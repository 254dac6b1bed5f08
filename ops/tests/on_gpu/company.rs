//! Parameters that are updated together have the bits that each has alone.

use ops::{
    DType, Floats, Place, Rule, Tensor,
    optim::{Moving, MuonClip, Optimizer, PlainAdamW, State},
};

use crate::Bed;

/// Parameters at a time, more than a launch takes.
const COUNT: usize = 67;

/// A parameter on its way: gradient, master, state.
struct Parameter {
    grad: Floats,
    master: Floats,
    state: State,
}

/// Both optimizers over a step, flat and tall matrices, and what follows an update.
pub fn all(bed: &mut Bed) {
    let muon = MuonClip::default();
    let plain = Optimizer::AdamW(PlainAdamW::default());
    for dtype in [DType::F32, DType::Bf16] {
        for shape in [[6, 10], [10, 6]] {
            let size = shape.iter().product();
            let values: Vec<[Vec<f32>; 2]> =
                (0..COUNT).map(|_| [bed.floats(size), bed.floats(size)]).collect();
            let by_muon = |all: &mut [Parameter]| step_muon(&muon, &shape, dtype, all);
            let optimizer = Optimizer::MuonClip(muon.clone());
            check(bed, &optimizer, &shape, dtype, &values, by_muon);
            let by_adamw = |all: &mut [Parameter]| {
                let moving = all.iter_mut().map(|Parameter { grad, master, state }| Moving {
                    grad,
                    master,
                    state,
                });
                plain.step_adamw(0.1, 0.7, moving.collect());
            };
            check(bed, &plain, &shape, dtype, &values, by_adamw);
        }
    }
}

fn step_muon(muon: &MuonClip, shape: &[usize], dtype: DType, all: &mut [Parameter]) {
    let pairs = all.iter_mut().map(|Parameter { grad, state, .. }| match state {
        State::Muon { momentum } => (&*grad, momentum),
        other => panic!("{other:?}"),
    });
    let directions = muon.directions(pairs.collect());
    let directions: Vec<&Floats> = directions.iter().collect();
    let orthogonal = muon.orthogonal(shape, dtype, &directions);
    let masters = all.iter_mut().map(|parameter| &mut parameter.master);
    muon.turn(shape, 0.1, orthogonal.iter().zip(masters).collect());
}

/// All together, each alone, and each on the host, whose bits a single step of AdamW has as well.
fn check(
    bed: &mut Bed,
    optimizer: &Optimizer,
    shape: &[usize],
    dtype: DType,
    values: &[[Vec<f32>; 2]],
    step: impl Fn(&mut [Parameter]),
) {
    let made = |place: &Place| -> Vec<Parameter> {
        let parameter = |[grad, master]: &[Vec<f32>; 2]| Parameter {
            grad: Floats::at(place, grad.clone()),
            master: Floats::at(place, master.clone()),
            state: optimizer.state(Rule::Muon, shape).at(place),
        };
        values.iter().map(parameter).collect()
    };
    let [mut together, mut alone] = [made(&bed.place), made(&bed.place)];
    step(&mut together);
    alone.chunks_mut(1).for_each(&step);
    let got = results(&together, shape, dtype);
    let each = alone.chunks(1).flat_map(|one| results(one, shape, dtype)).collect::<Vec<_>>();
    assert!(got == each, "{shape:?} {dtype:?}: other bits in company");
    bed.checked += COUNT;
    let mut host = made(&Place::Host);
    step(&mut host);
    let truth = results(&host, shape, dtype);
    if matches!(optimizer, Optimizer::AdamW(_)) {
        assert!(got == truth, "{shape:?} {dtype:?}: other bits than the host's");
    }
    for ((_, value), (_, truth)) in got.iter().zip(&truth) {
        let [value, truth] = [value, truth].map(|x| Tensor::from_f32(&[x.len()], x.clone()));
        bed.close("a value in company", &value, &truth, 2e-2);
    }
}

/// The square of each master's norm, and its value in the format and the state behind it.
fn results(all: &[Parameter], shape: &[usize], dtype: DType) -> Vec<(f64, Vec<f32>)> {
    let masters: Vec<&Floats> = all.iter().map(|parameter| &parameter.master).collect();
    let squares = Floats::squares(&masters, shape[1]).known();
    let values = Floats::nearest(&masters, shape, dtype);
    let each = all.iter().zip(values).zip(squares);
    let result =
        |((parameter, value), squares): ((&Parameter, Tensor), kernels::squares::Squares)| {
            let mut numbers = value.at(&Place::Host).f32().into_owned();
            let state = parameter.state.at(&Place::Host);
            state.buffers().iter().for_each(|(_, values)| numbers.extend_from_slice(values));
            (squares.value(), numbers)
        };
    each.map(result).collect()
}
