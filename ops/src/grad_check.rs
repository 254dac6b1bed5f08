//! The test that every operator has to pass: its gradients against central differences, and its
//! BF16 results against those in F32.

use kernels::random;

use crate::{Context, DType, Floats, Init, Observed, Operator, Tensor};

/// Random values with deviation 1; the key is the seed.
pub(crate) fn random(key: u64, shape: &[usize]) -> Tensor {
    let mut values = vec![0.0; shape.iter().product()];
    random::fill_normal(&mut values, key, 0, 1.0);
    Tensor::from_f32(shape, values)
}

/// Weights of the operator's shapes, far from zero so that every gradient shows.
pub(crate) fn random_weights(op: &dyn Operator) -> Vec<Tensor> {
    let weights = op.weights();
    let values = weights.iter().zip(100..).map(|(spec, key)| {
        let values = random(key, &spec.shape).f32().into_owned();
        let offset = if spec.init == Init::Ones { 1.0 } else { 0.0 };
        Tensor::from_f32(&spec.shape, values.iter().map(|x| offset + 0.4 * x).collect())
    });
    values.collect()
}

fn context(sequence: usize, dtype: DType) -> Context {
    Context { sequence, dtype, loss_scale: 0.25 }
}

/// Gradients for the outputs: random ones for floats, a placeholder for whole numbers.
fn dy_of(outputs: &[Tensor]) -> Vec<Tensor> {
    let dy = |(y, key): (&Tensor, u64)| {
        if y.dtype() == DType::I32 { y.clone() } else { random(key, y.shape()) }
    };
    outputs.iter().zip(200..).map(dy).collect()
}

/// The sum that the gradients are of: `sum dy y`, or the scaled loss.
fn objective(op: &dyn Operator, at: &Context, w: &[Tensor], x: &[Tensor], dy: &[Tensor]) -> f64 {
    let forward = op.forward(at, w, x);
    if let Some(Observed::Loss { sum, .. }) = forward.observed {
        return sum * f64::from(at.loss_scale);
    }
    let floats = forward.outputs.iter().zip(dy).filter(|(y, _)| y.dtype() != DType::I32);
    let product = |(y, dy): (&Tensor, &Tensor)| -> f64 {
        let (y, dy) = (y.f32(), dy.f32());
        y.iter().zip(dy.iter()).map(|(y, dy)| f64::from(*y) * f64::from(*dy)).sum()
    };
    floats.map(product).sum()
}

fn nudged(tensors: &[Tensor], which: usize, element: usize, by: f32) -> Vec<Tensor> {
    let mut tensors = tensors.to_vec();
    let mut values = tensors[which].f32().into_owned();
    values[element] += by;
    tensors[which] = Tensor::from_f32(tensors[which].shape(), values);
    tensors
}

/// All gradients: of the inputs, then of the weights.
fn gradients(
    op: &dyn Operator,
    at: &Context,
    w: &[Tensor],
    x: &[Tensor],
    dy: &[Tensor],
) -> (Vec<Option<Tensor>>, Vec<Vec<f32>>) {
    let forward = op.forward(at, w, x);
    let dx = op.backward_input(at, w, &forward.saved.input, dy);
    assert_eq!(dx.len(), x.len(), "one gradient or none for each input");
    crate::keeps::check(op, at, x, &forward, dy, &dx);
    let mut dw = vec![Floats::default(); w.len()];
    op.backward_weight(at, w, &forward.saved.weight, dy, &mut dw);
    dw.iter_mut().zip(w).for_each(|(dw, w)| dw.fill_up(w.len()));
    let mut twice = dw.clone();
    op.backward_weight(at, w, &forward.saved.weight, dy, &mut twice);
    let [dw, twice] = [dw, twice].map(|all| all.iter().map(Floats::to_host).collect::<Vec<_>>());
    for (one, two) in dw.iter().flatten().zip(twice.iter().flatten()) {
        assert!((2.0 * one - two).abs() <= 1e-5 * (1.0 + two.abs()), "begun {one}, added {two}");
    }
    (dx, dw)
}

/// Compares every gradient of an operator with central differences, and BF16 with F32.
#[track_caller]
pub(crate) fn check(op: &dyn Operator, sequence: usize, x: &[Tensor]) {
    let w = random_weights(op);
    check_with(op, sequence, &w, x);
}

/// The same with given weights.
#[track_caller]
pub(crate) fn check_with(op: &dyn Operator, sequence: usize, w: &[Tensor], x: &[Tensor]) {
    let at = context(sequence, DType::F32);
    let dy = dy_of(&op.forward(&at, w, x).outputs);
    let (dx, dw) = gradients(op, &at, w, x, &dy);
    let step = 1.0 / 512.0;
    let compare = |name: String, got: f32, slope: &dyn Fn(f32) -> f64| {
        let slope = (slope(step) - slope(-step)) / f64::from(2.0 * step);
        let error = (f64::from(got) - slope).abs();
        assert!(error < 4e-3 * (1.0 + slope.abs()), "{name}: {got}, but the slope is {slope}");
    };
    for (i, dx) in dx.iter().enumerate().filter_map(|(i, dx)| Some((i, dx.as_ref()?))) {
        assert_eq!(dx.shape(), x[i].shape());
        for (j, &got) in dx.f32().iter().enumerate() {
            let slope = |h| objective(op, &at, w, &nudged(x, i, j, h), &dy);
            compare(format!("input {i} at {j}"), got, &slope);
        }
    }
    for (i, dw) in dw.iter().enumerate().filter(|(i, _)| op.weights()[*i].init != Init::Zeros) {
        for (j, &got) in dw.iter().enumerate() {
            let slope = |h| objective(op, &at, &nudged(w, i, j, h), x, &dy);
            compare(format!("weight {i} at {j}"), got, &slope);
        }
    }
    check_bf16(op, sequence, w, x, &dy);
}

/// With inputs that BF16 can hold, results differ from those of F32 by their own rounding and by
/// that of what is between, such as the gradients of logits.
#[track_caller]
fn check_bf16(op: &dyn Operator, sequence: usize, w: &[Tensor], x: &[Tensor], dy: &[Tensor]) {
    let narrow = |x: &Tensor| match x.dtype() {
        DType::I32 => x.clone(),
        _ => Tensor::rounded(x.shape(), x.f32().into_owned(), DType::Bf16),
    };
    let wide = |x: &Tensor| match x.dtype() {
        DType::Bf16 => Tensor::from_f32(x.shape(), x.f32().into_owned()),
        _ => x.clone(),
    };
    let all = |tensors: &[Tensor], of: &dyn Fn(&Tensor) -> Tensor| -> Vec<Tensor> {
        tensors.iter().map(of).collect()
    };
    let (w, x, dy) = (all(w, &narrow), all(x, &narrow), all(dy, &narrow));
    let (wide_w, wide_x, wide_dy) = (all(&w, &wide), all(&x, &wide), all(&dy, &wide));
    let (bf16, f32) = (context(sequence, DType::Bf16), context(sequence, DType::F32));
    let (y, truth) = (op.forward(&bf16, &w, &x), op.forward(&f32, &wide_w, &wide_x));
    y.outputs.iter().zip(&truth.outputs).for_each(|(y, truth)| close(y, truth));
    let (dx, dw) = gradients(op, &bf16, &w, &x, &dy);
    let (true_dx, true_dw) = gradients(op, &f32, &wide_w, &wide_x, &wide_dy);
    dx.iter().flatten().zip(true_dx.iter().flatten()).for_each(|(dx, truth)| close(dx, truth));
    let tensor = |dw: &Vec<f32>| Tensor::from_f32(&[dw.len()], dw.clone());
    dw.iter().zip(&true_dw).for_each(|(dw, truth)| close(&tensor(dw), &tensor(truth)));
}

#[track_caller]
fn close(got: &Tensor, truth: &Tensor) {
    if truth.dtype() == DType::I32 {
        return assert_eq!(got.i32(), truth.i32());
    }
    let most = truth.f32().iter().fold(0.0_f32, |most, x| most.max(x.abs()));
    for (got, truth) in got.f32().iter().zip(truth.f32().iter()) {
        let allowed = (truth.abs() + most) / 256.0;
        assert!((got - truth).abs() <= allowed, "{got}, but f32 gives {truth}");
    }
}
