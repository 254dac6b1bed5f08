//! Ranges of a decoder's fields.

use ops::Yarn;

use crate::{decoder::Decoder, model::ModelError};

impl Decoder {
    /// Checks every field.
    ///
    /// # Errors
    ///
    /// All the fields out of range, in the order of the struct.
    pub fn check(&self) -> Result<(), Vec<ModelError>> {
        let mut errors = self.out_of_range();
        errors.extend(self.not_fitting());
        let stretching = self.yarn.as_ref().and_then(Yarn::out_of_range);
        errors.extend(stretching.map(|(field, got, range)| wrong(field, got, range.into())));
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// Sizes that are zero, or so large that their products could not be counted.
    fn out_of_range(&self) -> Vec<ModelError> {
        let mut sizes = vec![
            ("layers", self.layers, 1, 1 << 12),
            ("hidden", self.hidden, 1, 1 << 17),
            ("vocab", self.vocab, 1, 1 << 24),
            ("heads", self.heads, 1, 1 << 12),
            ("q_rank", self.q_rank.unwrap_or(1), 1, 1 << 17),
            ("kv_rank", self.kv_rank, 1, 1 << 17),
            ("nope", self.nope, 1, 1 << 12),
            ("rope", self.rope, 1, 1 << 12),
            ("value", self.value, 1, 1 << 12),
        ];
        if self.dense_layers > 0 {
            sizes.push(("dense_width", self.dense_width, 1, 1 << 20));
        }
        if self.dense_layers < self.layers {
            sizes.push(("experts", self.experts, 1, 1 << 14));
            sizes.push(("shared_experts", self.shared_experts, 0, 1 << 10));
            sizes.push(("expert_width", self.expert_width, 1, 1 << 17));
            sizes.push(("groups", self.groups, 1, 1 << 14));
        }
        let outside = sizes.into_iter().filter(|(_, size, low, high)| size < low || size > high);
        let error = |(field, size, low, high)| wrong(field, size, format!("{low} to {high}"));
        outside.map(error).collect()
    }

    /// Fields that have to fit each other.
    fn not_fitting(&self) -> Vec<ModelError> {
        let mut errors = Vec::new();
        let mut expect = |right: bool, error: ModelError| {
            if !right {
                errors.push(error);
            }
        };
        let Decoder { layers, dense_layers, experts, experts_per_token, groups, .. } = *self;
        let at_most = format!("at most the {layers} of `layers`");
        expect(dense_layers <= layers, wrong("dense_layers", dense_layers, at_most));
        expect(self.rope.is_multiple_of(2), wrong("rope", self.rope, "an even width".into()));
        let eps = self.norm_eps;
        expect(eps >= 0.0 && eps.is_finite(), wrong("norm_eps", eps, "0 or more".into()));
        let std = self.init_std;
        expect(std >= 0.0 && std.is_finite(), wrong("init_std", std, "0 or more".into()));
        let theta = self.rope_theta;
        expect(theta > 1.0 && theta.is_finite(), wrong("rope_theta", theta, "over 1".into()));
        if dense_layers >= layers {
            return errors;
        }
        let divisor = format!("a divisor of the {experts} experts");
        expect(groups == 0 || experts % groups == 0, wrong("groups", groups, divisor));
        let chosen = self.groups_per_token;
        let of_groups = format!("1 to the {groups} of `groups`");
        expect((1..=groups).contains(&chosen), wrong("groups_per_token", chosen, of_groups));
        let open = experts / groups.max(1) * chosen.min(groups);
        let of_experts = format!("1 to {open}, the experts a token may choose from");
        let k = experts_per_token;
        expect((1..=open).contains(&k), wrong("experts_per_token", k, of_experts));
        let scaling = self.scaling;
        let finite = scaling > 0.0 && scaling.is_finite();
        expect(finite, wrong("scaling", scaling, "over 0".into()));
        errors
    }
}

fn wrong(field: &'static str, got: impl ToString, expected: String) -> ModelError {
    ModelError::Field { field, got: got.to_string(), expected }
}
