//! stub
/// The line that adds a field.
pub fn line(field: &str) -> String {
    format!("{field}: ..,")
}
