//! `config.json` from a decoder and back.
//!
//! Written so that transformers 4 (`rope_theta`, `rope_scaling`, `torch_dtype`) and 5 both read
//! it; read in either form (`rope_parameters`).

use graphs::decoder::Decoder;
use ops::{DType, Yarn};
use serde_json::{Map, Value, json};

/// Tokens a text may have: the trained context, stretched if the rotation is.
pub(super) fn positions(decoder: &Decoder, context: usize) -> usize {
    let stretched = decoder.yarn.as_ref().map(|y| (y.original as f64 * y.factor).round() as usize);
    stretched.unwrap_or(0).max(context)
}

/// The file's content; `end` is the token between documents.
pub(super) fn written(decoder: &Decoder, context: usize, end: u32, dtype: DType) -> Value {
    let dtype = match dtype {
        DType::Bf16 => "bfloat16",
        _ => "float32",
    };
    let run = json!({
        "bos_token_id": end,
        "eos_token_id": end,
        "dtype": dtype,
        "torch_dtype": dtype,
        "max_position_embeddings": positions(decoder, context),
    });
    let parts = [family(), sizes(decoder), numbers(decoder), run];
    parts.into_iter().filter_map(|part| part.as_object().cloned()).flatten().collect()
}

/// What all models that this tool trains have in common.
fn family() -> Value {
    json!({
        "architectures": ["DeepseekV3ForCausalLM"],
        "model_type": "deepseek_v3",
        "attention_bias": false,
        "attention_dropout": 0.0,
        "hidden_act": "silu",
        "moe_layer_freq": 1,
        "norm_topk_prob": true,
        "num_nextn_predict_layers": 0,
        "pretraining_tp": 1,
        "rope_interleave": true,
        "scoring_func": "sigmoid",
        "tie_word_embeddings": false,
        "topk_method": "noaux_tc",
        "use_cache": true,
    })
}

fn sizes(decoder: &Decoder) -> Value {
    json!({
        "first_k_dense_replace": decoder.dense_layers,
        "hidden_size": decoder.hidden,
        "intermediate_size": decoder.dense_width,
        "kv_lora_rank": decoder.kv_rank,
        "moe_intermediate_size": decoder.expert_width,
        "n_group": decoder.groups,
        "n_routed_experts": decoder.experts,
        "n_shared_experts": decoder.shared_experts,
        "num_attention_heads": decoder.heads,
        "num_experts_per_tok": decoder.experts_per_token,
        "num_hidden_layers": decoder.layers,
        "num_key_value_heads": decoder.heads,
        "q_lora_rank": decoder.q_rank,
        "qk_nope_head_dim": decoder.nope,
        "qk_rope_head_dim": decoder.rope,
        "topk_group": decoder.groups_per_token,
        "v_head_dim": decoder.value,
        "vocab_size": decoder.vocab,
    })
}

fn numbers(decoder: &Decoder) -> Value {
    json!({
        "initializer_range": decimal(decoder.init_std),
        "rms_norm_eps": decimal(decoder.norm_eps),
        "rope_scaling": decoder.yarn.as_ref().map(scaling),
        "rope_theta": decoder.rope_theta,
        "routed_scaling_factor": decimal(decoder.scaling),
    })
}

/// The shortest decimal number that rounds to the value, as people write it.
fn decimal(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}

fn scaling(yarn: &Yarn) -> Value {
    let mut scaling = json!({
        "type": "yarn",
        "rope_type": "yarn",
        "factor": yarn.factor,
        "original_max_position_embeddings": yarn.original,
        "beta_fast": yarn.beta_fast,
        "beta_slow": yarn.beta_slow,
        "mscale": yarn.mscale,
        "mscale_all_dim": yarn.mscale_all_dim,
    });
    if magnitude(yarn.factor, yarn.mscale, yarn.mscale_all_dim) != yarn.magnitude() {
        scaling["attention_factor"] = yarn.magnitude().into();
    }
    scaling
}

/// Factor of cosine and sine as transformers infers it; zeros count as left out there.
fn magnitude(factor: f64, mscale: f64, mscale_all_dim: f64) -> f64 {
    let (mscale, all) =
        if mscale == 0.0 || mscale_all_dim == 0.0 { (1.0, 0.0) } else { (mscale, mscale_all_dim) };
    let (original, beta_fast, beta_slow) = (1, 32.0, 1.0);
    Yarn { factor, original, beta_fast, beta_slow, mscale, mscale_all_dim: all }.magnitude()
}

/// The decoder and the greatest number of positions, or everything that is wrong.
pub(super) fn understood(config: &Map<String, Value>) -> Result<(Decoder, usize), Vec<String>> {
    let mut fields = Fields { config, problems: Vec::new() };
    fields.fixed();
    let read = fields.decoder();
    let positions = fields.positive("max_position_embeddings");
    if fields.problems.is_empty() {
        let checked = read.check();
        checked.map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>())?;
        return Ok((read, positions));
    }
    Err(fields.problems)
}

/// A file's fields, and what is wrong with those read so far.
struct Fields<'a> {
    config: &'a Map<String, Value>,
    problems: Vec<String>,
}

impl Fields<'_> {
    fn decoder(&mut self) -> Decoder {
        let (rope_theta, yarn) = self.rotation();
        Decoder {
            layers: self.count("num_hidden_layers"),
            dense_layers: self.count("first_k_dense_replace"),
            hidden: self.count("hidden_size"),
            dense_width: self.count("intermediate_size"),
            vocab: self.count("vocab_size"),
            heads: self.count("num_attention_heads"),
            q_rank: self.present("q_lora_rank").then(|| self.count("q_lora_rank")),
            kv_rank: self.count("kv_lora_rank"),
            nope: self.count("qk_nope_head_dim"),
            rope: self.count("qk_rope_head_dim"),
            value: self.count("v_head_dim"),
            experts: self.count("n_routed_experts"),
            experts_per_token: self.count("num_experts_per_tok"),
            shared_experts: self.count("n_shared_experts"),
            expert_width: self.count("moe_intermediate_size"),
            groups: self.count("n_group"),
            groups_per_token: self.count("topk_group"),
            scaling: self.number("routed_scaling_factor") as f32,
            rope_theta,
            yarn,
            norm_eps: self.number("rms_norm_eps") as f32,
            init_std: self.number("initializer_range") as f32,
        }
    }

    /// Fields with one value that this tool computes; those left out have that value.
    fn fixed(&mut self) {
        let heads = self.config.get("num_attention_heads").cloned().unwrap_or(Value::Null);
        self.one_of("model_type", &[json!("deepseek_v3"), json!("kimi_k2")]);
        for (field, value) in [
            ("attention_bias", json!(false)),
            ("hidden_act", json!("silu")),
            ("moe_layer_freq", json!(1)),
            ("norm_topk_prob", json!(true)),
            ("num_key_value_heads", heads),
            ("quantization_config", Value::Null),
            ("rope_interleave", json!(true)),
            ("scoring_func", json!("sigmoid")),
            ("tie_word_embeddings", json!(false)),
            ("topk_method", json!("noaux_tc")),
        ] {
            if self.present(field) {
                self.one_of(field, &[value]);
            }
        }
    }

    /// Base of the rotation and its stretching, from either form.
    fn rotation(&mut self) -> (f64, Option<Yarn>) {
        let either = ["rope_parameters", "rope_scaling"];
        let Some(form) = either.into_iter().find(|form| self.present(form)) else {
            return (self.number("rope_theta"), None);
        };
        let empty = Map::new();
        let config = self.config[form].as_object().unwrap_or(&empty);
        let mut inner = Fields { config, problems: Vec::new() };
        let theta = inner.present("rope_theta").then(|| inner.number("rope_theta"));
        let kind = config.get("rope_type").or_else(|| config.get("type"));
        let yarn = match kind.and_then(Value::as_str) {
            Some("default") => None,
            Some("yarn") => Some(inner.yarn()),
            _ => {
                inner.problems.push(format!("type: expected \"yarn\", got {kind:?}"));
                None
            }
        };
        self.problems.extend(inner.problems.iter().map(|problem| format!("{form}.{problem}")));
        (theta.unwrap_or_else(|| self.number("rope_theta")), yarn)
    }

    fn yarn(&mut self) -> Yarn {
        let yarn = Yarn {
            factor: self.number("factor"),
            original: self.count("original_max_position_embeddings"),
            beta_fast: self.number_or("beta_fast", 32.0),
            beta_slow: self.number_or("beta_slow", 1.0),
            mscale: self.number_or("mscale", 1.0),
            mscale_all_dim: self.number_or("mscale_all_dim", 0.0),
        };
        let inferred = magnitude(yarn.factor, yarn.mscale, yarn.mscale_all_dim);
        let theirs = self.number_or("attention_factor", inferred);
        let ours = yarn.magnitude();
        if (theirs - ours).abs() > 1e-6 {
            self.problems.push(format!("attention_factor: expected {ours}, got {theirs}"));
        }
        yarn
    }

    fn present(&self, field: &str) -> bool {
        self.config.get(field).is_some_and(|value| !value.is_null())
    }

    fn one_of(&mut self, field: &str, values: &[Value]) {
        let got = self.config.get(field).unwrap_or(&Value::Null);
        if !values.contains(got) {
            let expected: Vec<String> = values.iter().map(Value::to_string).collect();
            let expected = expected.join(" or ");
            self.problems.push(format!("{field}: expected {expected}, got {got}"));
        }
    }

    fn count(&mut self, field: &str) -> usize {
        let value = self.config.get(field).unwrap_or(&Value::Null);
        let count = value.as_u64().and_then(|count| usize::try_from(count).ok());
        count.unwrap_or_else(|| {
            self.problems.push(format!("{field}: expected a whole number, got {value}"));
            0
        })
    }

    fn positive(&mut self, field: &str) -> usize {
        let count = self.count(field);
        if count == 0 && self.problems.is_empty() {
            self.problems.push(format!("{field}: expected more than 0, got 0"));
        }
        count
    }

    fn number(&mut self, field: &str) -> f64 {
        let value = self.config.get(field).unwrap_or(&Value::Null);
        value.as_f64().unwrap_or_else(|| {
            self.problems.push(format!("{field}: expected a number, got {value}"));
            0.0
        })
    }

    fn number_or(&mut self, field: &str, absent: f64) -> f64 {
        if self.present(field) { self.number(field) } else { absent }
    }
}
