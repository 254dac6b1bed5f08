//! Compiles programs with NVRTC, once for each device's architecture, and keeps the results on
//! disk.

use std::{
    ffi::{CStr, CString},
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use cudarc::nvrtc::{result, sys};

use super::{DeviceError, probe::nvrtc_version, program::Program};

/// NVRTC, and where its results are kept.
#[derive(Clone, Debug)]
pub struct Compiler {
    version: (i32, i32),
    architecture: String,
    folder: Option<PathBuf>,
}

/// Machine code of a program.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// What the driver loads.
    pub binary: Vec<u8>,
    /// What the compiler said: registers, spills, warnings; empty if the result was kept.
    pub log: String,
}

impl Compiler {
    /// For an architecture such as `sm_80`; results are kept in `folder`, if there is one.
    ///
    /// # Errors
    ///
    /// [`DeviceError::NoLibrary`] without NVRTC.
    pub fn new(architecture: &str, folder: Option<&Path>) -> Result<Self, DeviceError> {
        let version = nvrtc_version()?;
        let folder = folder.map(Path::to_path_buf);
        Ok(Compiler { version, architecture: architecture.into(), folder })
    }

    /// The folder of the user: `$XDG_CACHE_HOME/troupe`, or `~/.cache/troupe`.
    pub fn usual_folder() -> Option<PathBuf> {
        let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"));
        Some(std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home)?.join("troupe"))
    }

    /// Returns the machine code, out of the folder if it is there.
    ///
    /// A file there is named by the hash of all that decides about its content, and ends with the
    /// hash of its content, so that neither another compiler nor half a file is taken for it. A
    /// folder that cannot be written is no error: the program is compiled anew each time.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Compile`] with what NVRTC says.
    pub fn compile(&self, program: Program) -> Result<Compiled, DeviceError> {
        let (text, options) = (program.text(&self.architecture), self.options(program));
        let Some(folder) = &self.folder else { return self.compile_anew(program, text, &options) };
        let file = folder.join(self.file(program, &text, &options));
        if let Some(binary) = kept(&file) {
            return Ok(Compiled { binary, log: String::new() });
        }
        let compiled = self.compile_anew(program, text, &options)?;
        let _ = keep(&file, &compiled.binary);
        Ok(compiled)
    }

    /// Returns the machine code of programs, as many at a time as there are cores.
    ///
    /// # Errors
    ///
    /// As [`compile`](Self::compile), for the first that fails.
    pub fn compile_all(&self, programs: &[Program]) -> Result<Vec<Compiled>, DeviceError> {
        let cores = thread::available_parallelism().map_or(1, usize::from).min(programs.len());
        let next = AtomicUsize::new(0);
        let work = || -> Result<Vec<(usize, Compiled)>, DeviceError> {
            let mut own = Vec::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(program) = programs.get(index) else { return Ok(own) };
                own.push((index, self.compile(*program)?));
            }
        };
        let mut all = thread::scope(|scope| {
            let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
            let parts = threads.into_iter().map(|thread| thread.join().expect("no panic"));
            parts.collect::<Result<Vec<_>, DeviceError>>()
        })?
        .concat();
        all.sort_unstable_by_key(|(index, _)| *index);
        Ok(all.into_iter().map(|(_, compiled)| compiled).collect())
    }

    fn options(&self, program: Program) -> Vec<String> {
        let mut options = program.options();
        options.push(format!("--gpu-architecture={}", self.architecture));
        options.push("--ptxas-options=--verbose".into());
        options
    }

    fn file(&self, program: Program, text: &str, options: &[String]) -> String {
        let mut hash = blake3::Hasher::new();
        hash.update(format!("{:?} {options:?}\n{text}", self.version).as_bytes());
        let hash = hash.finalize().to_hex();
        format!("{}-{}-{}.cubin", program.name(), self.architecture, &hash[..32])
    }

    fn compile_anew(
        &self,
        program: Program,
        text: String,
        options: &[String],
    ) -> Result<Compiled, DeviceError> {
        let failed = |log: String| DeviceError::Compile {
            program: program.name(),
            architecture: self.architecture.clone(),
            log,
        };
        let text = CString::new(text).expect("a source has no zero");
        let name = CString::new(program.name()).expect("a name has no zero");
        let handle = Handle(
            result::create_program(&text, Some(&name))
                .map_err(|error| failed(error.to_string()))?,
        );
        // SAFETY: the handle is a program that has not been destroyed; text and name outlive it.
        let outcome = unsafe { result::compile_program(handle.0, options) };
        // SAFETY: as above.
        let log = unsafe { result::get_program_log(handle.0) }.unwrap_or_default();
        let log: Vec<u8> = log.into_iter().map(|byte| byte as u8).collect();
        let log = CStr::from_bytes_until_nul(&log).unwrap_or_default();
        let log = log.to_string_lossy().into_owned();
        outcome.map_err(|error| failed(format!("{error}\n{log}")))?;
        let binary = handle.binary().map_err(|error| failed(error.to_string()))?;
        Ok(Compiled { binary, log })
    }
}

/// A program of NVRTC's.
struct Handle(sys::nvrtcProgram);

impl Handle {
    fn binary(&self) -> Result<Vec<u8>, result::NvrtcError> {
        let mut bytes = 0;
        // SAFETY: the handle is a compiled program, the pointer that of a number.
        unsafe { sys::nvrtcGetCUBINSize(self.0, &mut bytes) }.result()?;
        let mut binary = vec![0_u8; bytes];
        // SAFETY: there is room for as many bytes as the program has.
        unsafe { sys::nvrtcGetCUBIN(self.0, binary.as_mut_ptr().cast()) }.result()?;
        Ok(binary)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: nobody else has the handle, and it is not used again. A failure leaks a program.
        let _ = unsafe { result::destroy_program(self.0) };
    }
}

/// The content of a file that is whole.
fn kept(file: &Path) -> Option<Vec<u8>> {
    let mut content = fs::read(file).ok()?;
    let hash = content.split_off(content.len().checked_sub(blake3::OUT_LEN)?);
    (blake3::hash(&content).as_bytes()[..] == hash).then_some(content)
}

/// Writes beside the file and renames, so that nobody reads half of it.
fn keep(file: &Path, binary: &[u8]) -> std::io::Result<()> {
    fs::create_dir_all(file.parent().expect("a file lies in a folder"))?;
    let beside = file.with_extension(format!("{}", std::process::id()));
    fs::write(&beside, [binary, blake3::hash(binary).as_bytes()].concat())?;
    fs::rename(&beside, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_file_is_not_taken_for_a_result() {
        let folder = std::env::temp_dir().join(format!("troupe-kept-{}", std::process::id()));
        let file = folder.join("x.cubin");
        assert_eq!(kept(&file), None);
        keep(&file, b"machine code").unwrap();
        assert_eq!(kept(&file).as_deref(), Some(&b"machine code"[..]));
        let whole = fs::read(&file).unwrap();
        fs::write(&file, &whole[1..]).unwrap();
        assert_eq!(kept(&file), None);
        fs::write(&file, &whole[..7]).unwrap();
        assert_eq!(kept(&file), None);
        fs::remove_dir_all(&folder).unwrap();
    }
}
