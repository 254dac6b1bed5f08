//! One operator: its forward pass, both halves of its backward pass, and a check of the gradients.
//!
//! The halves are apart because a pipeline runs them apart: the stage before waits for the
//! gradient of the input, and nobody for that of the weights.
//!
//! `cargo run --example 02_one_operator`

use ops::{Context, DType, Floats, Operator, RmsNorm, Tensor};

const AT: Context = Context { sequence: 2, dtype: DType::F32, loss_scale: 1.0 };

fn main() {
    let norm = RmsNorm { width: 4, eps: 1e-6 };
    let x = Tensor::from_f32(&[2, 4], vec![0.5, -1.0, 2.0, 0.25, 1.5, 0.75, -0.5, 1.0]);
    let w = Tensor::from_f32(&[4], vec![1.0, 0.5, 2.0, -1.0]);

    let mut forward = norm.forward(&AT, std::slice::from_ref(&w), std::slice::from_ref(&x));
    let y = forward.outputs.remove(0);
    println!("F  y  = {:.3?}", y.f32());

    // We call half the sum of squares of y the loss, so the gradient of y is y itself.
    let dy = [y];
    let dx = norm.backward_input(&AT, std::slice::from_ref(&w), &forward.saved.input, &dy);
    let dx = dx[0].as_ref().expect("a norm's input has a gradient").f32().into_owned();
    println!("I  dx = {dx:.3?}");

    let mut dw = [Floats::from(vec![0.0; 4])];
    norm.backward_weight(&AT, std::slice::from_ref(&w), &forward.saved.weight, &dy, &mut dw);
    let dw = dw[0].host();
    println!("W  dw = {dw:.3?}");

    let by_x = differences(&x, |x| loss(&norm, &w, x));
    let by_w = differences(&w, |w| loss(&norm, w, &x));
    println!("by central differences dx = {by_x:.3?}\n{:23}dw = {by_w:.3?}", "");
    let pairs = dx.iter().zip(&by_x).chain(dw.iter().zip(&by_w));
    let worst = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < 1e-3, "the gradients are wrong by {worst}");
    println!("they agree within a thousandth");
}

/// Half the sum of squares of what the operator makes of `x`.
fn loss(norm: &RmsNorm, w: &Tensor, x: &Tensor) -> f32 {
    let y = norm.forward(&AT, std::slice::from_ref(w), std::slice::from_ref(x)).outputs.remove(0);
    y.f32().iter().map(|y| 0.5 * y * y).sum()
}

/// `(f(v + h) - f(v - h)) / 2h` for every element of `v`.
fn differences(v: &Tensor, f: impl Fn(&Tensor) -> f32) -> Vec<f32> {
    const H: f32 = 1e-2;
    let moved = |element: usize, by: f32| {
        let mut values = v.f32().into_owned();
        values[element] += by;
        f(&Tensor::from_f32(v.shape(), values))
    };
    (0..v.len()).map(|element| (moved(element, H) - moved(element, -H)) / (2.0 * H)).collect()
}
