//! Tensors in safetensors files of bounded size, as checkpoints and exported models keep them.

use std::{borrow::Cow, collections::BTreeMap, fs, io, path::Path};

use bytes::Bytes;
use half::f16;
use ops::{DType, Tensor};
use safetensors::{Dtype, SafeTensorError, SafeTensors, View, tensor::TensorView};

/// Why a file of tensors was not written or read.
#[derive(Debug, thiserror::Error)]
pub enum ShardError {
    /// The file system refused.
    #[error("the file system refuses")]
    File(#[from] io::Error),
    /// The bytes are no safetensors file.
    #[error("it is no whole safetensors file")]
    Damaged(#[from] SafeTensorError),
    /// A tensor has a number format that is not read.
    #[error("tensor `{tensor}` has format {format}; expected F32, BF16, F16 or I32")]
    Format {
        /// Its name.
        tensor: String,
        /// Its format.
        format: String,
    },
}

/// A tensor as safetensors wants to see it.
struct Shown<'a>(&'a Tensor);

impl View for Shown<'_> {
    fn dtype(&self) -> Dtype {
        match self.0.dtype() {
            DType::F32 => Dtype::F32,
            DType::Bf16 => Dtype::BF16,
            DType::I32 => Dtype::I32,
        }
    }

    fn shape(&self) -> &[usize] {
        self.0.shape()
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(self.0.bytes())
    }

    fn data_len(&self) -> usize {
        self.0.bytes().len()
    }
}

/// Groups names, in the given order, so that the tensors of a group have at most `limit` bytes.
///
/// A tensor that is larger gets a group of its own.
pub fn cut<'a>(
    sizes: impl IntoIterator<Item = (&'a str, usize)>,
    limit: usize,
) -> Vec<Vec<&'a str>> {
    let mut groups: Vec<Vec<&str>> = Vec::new();
    let mut room = 0;
    for (name, bytes) in sizes {
        match groups.last_mut() {
            Some(group) if bytes <= room => group.push(name),
            _ => {
                groups.push(vec![name]);
                room = limit;
            }
        }
        room = room.saturating_sub(bytes);
    }
    groups
}

/// File name of shard `index` of `count`, counted from one as transformers does.
pub fn name(prefix: &str, index: usize, count: usize) -> String {
    format!("{prefix}-{:05}-of-{count:05}.safetensors", index + 1)
}

/// Writes tensors to a file and waits until they are on the disk.
///
/// # Errors
///
/// [`ShardError::File`] if the disk refuses.
pub fn write<'a>(
    path: &Path,
    tensors: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
) -> Result<(), ShardError> {
    let shown = tensors.into_iter().map(|(name, tensor)| (name, Shown(tensor)));
    // transformers refuses files that do not say for whom they are.
    let about = [("format".to_string(), "pt".to_string())].into_iter().collect();
    safetensors::serialize_to_file(shown, Some(about), path)?;
    Ok(fs::File::open(path)?.sync_all()?)
}

/// Reads all tensors of a file; they share its memory. F16 is widened to F32.
///
/// # Errors
///
/// The variant of [`ShardError`] that says what is wrong with the file.
pub fn read(path: &Path) -> Result<BTreeMap<String, Tensor>, ShardError> {
    let bytes = Bytes::from(fs::read(path)?);
    let views = SafeTensors::deserialize(&bytes)?.tensors();
    views.into_iter().map(|(name, view)| Ok((name.clone(), tensor(name, &view, &bytes)?))).collect()
}

fn tensor(name: String, view: &TensorView, bytes: &Bytes) -> Result<Tensor, ShardError> {
    let dtype = match view.dtype() {
        Dtype::F32 => DType::F32,
        Dtype::BF16 => DType::Bf16,
        Dtype::I32 => DType::I32,
        Dtype::F16 => {
            let values = view.data().as_chunks().0.iter();
            let values = values.map(|&two| f16::from_le_bytes(two).to_f32()).collect();
            return Ok(Tensor::from_f32(view.shape(), values));
        }
        other => return Err(ShardError::Format { tensor: name, format: other.to_string() }),
    };
    Ok(Tensor::from_bytes(view.shape(), dtype, bytes.slice_ref(view.data())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_keep_the_bound_and_the_order() {
        let sizes = [("a", 3), ("b", 4), ("c", 1), ("d", 9), ("e", 2)];
        assert_eq!(cut(sizes, 8), [vec!["a", "b", "c"], vec!["d"], vec!["e"]]);
        assert!(cut([], 8).is_empty());
        assert_eq!(name("model", 0, 12), "model-00001-of-00012.safetensors");
    }

    #[test]
    fn half_precision_is_widened_and_other_formats_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        let write = |dtype, data: &[u8]| {
            let view = TensorView::new(dtype, vec![2], data).unwrap();
            safetensors::serialize_to_file([("x", view)], None, &path).unwrap();
            read(&path)
        };
        let halves = [f16::from_f32(1.5).to_le_bytes(), f16::from_f32(-2.0).to_le_bytes()];
        let tensors = write(Dtype::F16, halves.as_flattened()).unwrap();
        assert_eq!(tensors["x"].f32().as_ref(), [1.5, -2.0]);
        let error = write(Dtype::F8_E4M3, &[1, 2]).unwrap_err().to_string();
        assert_eq!(error, "tensor `x` has format F8_E4M3; expected F32, BF16, F16 or I32");
    }
}
