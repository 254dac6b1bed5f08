//! The libraries of the emulation of a GPU, for the tests of several crates: `shim/` built by g++.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Mutex,
};

/// How threads of a block run if nothing is said: as fibers.
pub const PLAIN: &str = "";

/// Fibers and streams that ThreadSanitizer watches.
pub const WATCHED: &str = "-fsanitize=thread -DSHIM_WATCHED";

/// The libraries, built if they are not there, and the folder that they are in.
pub struct Emulation {
    /// What the compiler is told beside the usual; PLAIN, or what has a sanitizer watch.
    pub flags: &'static str,
    pub folder: PathBuf,
}

/// Each library and its source.
const LIBRARIES: [(&str, &str); 4] = [
    ("libcuda.so.1", "driver.cpp"),
    ("libnvrtc.so", "nvrtc.cpp"),
    ("libcublasLt.so", "cublaslt.cpp"),
    ("libnccl.so.2", "nccl.cpp"),
];

fn shim() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../kernels/tests/shim")
}

/// Whether something can be run at all.
fn runs(program: &str) -> bool {
    let version =
        Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    version.is_ok_and(|status| status.success())
}

impl Emulation {
    /// None, having said so, where there is no g++.
    pub fn new(flags: &'static str) -> Option<Self> {
        static ONE_BY_ONE: Mutex<()> = Mutex::new(());
        if !cfg!(target_os = "linux") || !runs("g++") {
            eprintln!("skipped: the emulation of the driver needs Linux and g++");
            return None;
        }
        let _alone = ONE_BY_ONE.lock().unwrap();
        let mut hash = blake3::Hasher::new();
        hash.update(flags.as_bytes());
        let mut files: Vec<_> = fs::read_dir(shim()).unwrap().map(|f| f.unwrap().path()).collect();
        files.sort();
        for file in files {
            hash.update(&fs::read(file).unwrap());
        }
        let name = format!("emulation-{}", &hash.finalize().to_hex()[..16]);
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        // Tests of several crates may build at a time: each builds aside, and the first one stays.
        let aside = folder.with_extension(std::process::id().to_string());
        if !folder.exists() {
            fs::create_dir_all(&aside).unwrap();
            let emulation = Emulation { flags, folder: aside.clone() };
            LIBRARIES.iter().for_each(|(library, source)| emulation.build(source, library));
            if fs::rename(&aside, &folder).is_err() {
                fs::remove_dir_all(&aside).unwrap();
            }
        }
        Some(Emulation { flags, folder })
    }

    fn build(&self, source: &str, library: &str) {
        let flags = self.flags;
        let mut command = Command::new("g++");
        command.args(["-std=c++17", "-O1", "-g1", "-fPIC", "-shared", "-Wall", "-Wextra"]);
        command.args(["-Werror", "-pthread"]).args(flags.split_whitespace());
        command.arg(format!("-DSHIM_FOLDER=\"{}\"", shim().display()));
        command.arg(format!("-DSHIM_FLAGS=\"{flags}\""));
        command.arg(shim().join(source)).arg("-o").arg(self.folder.join(library)).arg("-ldl");
        if matches!(library, "libcublasLt.so" | "libnccl.so.2") {
            command.arg("-L").arg(&self.folder).arg("-l:libcuda.so.1");
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Lets a program find the libraries.
    pub fn settle(&self, command: &mut Command) {
        command.env("LD_LIBRARY_PATH", &self.folder);
        // What one emulation has compiled is of no use to another.
        command.env("XDG_CACHE_HOME", &self.folder);
        if self.flags == WATCHED {
            let library = Command::new("g++").arg("-print-file-name=libtsan.so").output().unwrap();
            let library = String::from_utf8(library.stdout).unwrap();
            command.env("LD_PRELOAD", fs::canonicalize(library.trim()).unwrap());
            // Rust's own code is not compiled for it.
            command.env("TSAN_OPTIONS", "ignore_noninstrumented_modules=1 exitcode=66");
        }
    }
}
