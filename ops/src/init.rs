//! Weights before the first step: functions of seed and name, and of nothing else.

use kernels::random;

use crate::{Init, WeightSpec};

impl WeightSpec {
    /// The values before the first step of the parameter called `name` in a job with this seed.
    ///
    /// They do not depend on any other parameter, nor on where this one lives.
    pub fn initial(&self, seed: u64, name: &str) -> Vec<f32> {
        let mut values = vec![0.0; self.shape.iter().product()];
        match self.init {
            Init::Normal(deviation) => {
                random::fill_normal(&mut values, random::key(seed, name), 0, deviation);
            }
            Init::Ones => values.fill(1.0),
            Init::Zeros => {}
        }
        values
    }
}

#[cfg(test)]
mod tests {
    use crate::{Linear, Operator, RmsNorm};

    #[test]
    fn values_depend_on_seed_and_name_only() {
        let linear = Linear { input: 20, output: 30, init_std: 0.5 };
        let spec = &linear.weights()[0];
        let values = spec.initial(1, "a.weight");
        assert_eq!(values, spec.initial(1, "a.weight"));
        assert_ne!(values, spec.initial(2, "a.weight"));
        assert_ne!(values, spec.initial(1, "b.weight"));
        let square = values.iter().map(|x| x * x).sum::<f32>() / 600.0;
        assert!((square.sqrt() - 0.5).abs() < 0.06);
        assert_eq!(RmsNorm { width: 2, eps: 0.0 }.weights()[0].initial(1, "n"), [1.0, 1.0]);
    }
}
