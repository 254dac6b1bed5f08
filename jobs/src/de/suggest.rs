//! What a misspelt name was probably meant to be.

/// The accepted name nearest to `name`, if it is near enough to be meant.
pub fn suggestion<'a>(name: &str, accepted: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |text: &str| text.replace(['_', '-'], "").to_lowercase();
    let name = plain(name);
    let far = (name.len() / 3).max(1);
    accepted
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&name, &plain(candidate)), candidate))
        .filter(|(distance, candidate)| *distance <= far && *distance < candidate.len())
        .min_by_key(|(distance, candidate)| {
            (*distance, !plain(candidate).starts_with(name.chars().next().unwrap_or(' ')))
        })
        .map(|(_, candidate)| candidate)
}

/// `owner has a, b, c; did you mean `a`?`
pub fn listed(owner: &str, name: &str, accepted: &[&str]) -> String {
    if accepted.is_empty() {
        return format!("{owner} has none");
    }
    let list = accepted.join(", ");
    match suggestion(name, accepted.iter().copied()) {
        Some(near) => format!("{owner} has {list}; did you mean `{near}`?"),
        None => format!("{owner} has {list}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_suggested_and_far_ones_are_not() {
        assert_eq!(suggestion("ppp", ["pp", "vpp", "ep"]), Some("pp"));
        assert_eq!(suggestion("topk", ["experts", "top_k"]), Some("top_k"));
        assert_eq!(suggestion("MoE", ["Mla", "Moe"]), Some("Moe"));
        assert_eq!(suggestion("colour", ["pp", "stages", "schedule"]), None);
        assert_eq!(suggestion("x", ["y"]), None);
        assert_eq!(suggestion("topk", ["nope", "rope"]), None);
        assert_eq!(suggestion("epp", ["pp", "ep"]), Some("ep"));
    }
}
