//! NVRTC, where it is installed, compiles every source for every architecture without a word, and
//! NCCL has all functions that we call.
//!
//! It needs no GPU: `pip install nvidia-cuda-nvrtc nvidia-nccl-cu13`, and their folders on
//! LD_LIBRARY_PATH.

use kernels::cuda::{
    Compiler, DeviceError,
    nccl::UniqueId,
    program::{Format, HOPPER, Program, Source, Widths},
};

/// Widths of heads: K2's, k2-nano's, one that is a multiple of nothing.
const WIDTHS: [Widths; 3] = [
    Widths { nope: 128, rope: 64, value: 128 },
    Widths { nope: 32, rope: 16, value: 32 },
    Widths { nope: 6, rope: 0, value: 5 },
];

/// Kernel, registers, and bytes of spills and of local memory, of each that a log tells of.
fn resources(log: &str) -> Vec<(String, u32, u32)> {
    let number_before = |line: &str, words: &str| {
        let (head, _) = line.split_once(words)?;
        head.rsplit([' ', ',']).next()?.parse::<u32>().ok()
    };
    let (mut all, mut kernel, mut spills) = (Vec::new(), String::new(), 0);
    for line in log.lines() {
        if let Some(name) = line.split("Compiling entry function '").nth(1) {
            kernel = name.split('\'').next().unwrap().to_string();
        } else if let Some(bytes) = number_before(line, " bytes spill stores") {
            spills = bytes + number_before(line, " bytes spill loads").unwrap();
            spills += number_before(line, " bytes stack frame").unwrap();
        } else if let Some(registers) = number_before(line, " registers") {
            all.push((kernel.clone(), registers, spills));
        }
    }
    all
}

#[test]
fn every_source_compiles_for_every_architecture_without_warning_or_spill() {
    let mut kernels = 0;
    for architecture in ["sm_80", "sm_90", HOPPER] {
        let compiler = match Compiler::new(architecture, None) {
            Ok(compiler) => compiler,
            Err(error) => return eprintln!("skipped: {error}"),
        };
        let mut programs = Vec::new();
        for format in [Format::F32, Format::Bf16] {
            for source in WIDTHS.into_iter().flat_map(Source::all) {
                programs.push(Program { source, format });
            }
        }
        programs.sort_unstable();
        programs.dedup();
        let compiled = compiler.compile_all(&programs).unwrap();
        for (program, compiled) in programs.iter().zip(compiled) {
            // ptxas tells as `info` that it waits for each product of a warpgroup.
            let is_silent = !compiled.log.contains("warning") && !compiled.log.contains("wgmma");
            assert!(is_silent, "{}\n{}", program.name(), compiled.log);
            assert!(compiled.binary.starts_with(b"\x7FELF"), "machine code of {}", program.name());
            let found = resources(&compiled.log);
            let declared = program.text(architecture).matches("\nKERNEL(").count();
            assert_eq!(found.len(), declared, "kernels of {}\n{}", program.name(), compiled.log);
            for (kernel, registers, spills) in found {
                kernels += 1;
                let name = program.name();
                println!("{architecture} {name:<40} {kernel:<28} {registers:>3} registers");
                assert_eq!(spills, 0, "bytes spilled by {kernel} of {name} for {architecture}");
            }
        }
    }
    println!("{kernels} kernels");
}

#[test]
fn a_mistake_is_told_with_the_place_in_the_source() {
    let Ok(compiler) = Compiler::new("sm_0", None) else {
        return eprintln!("skipped: no NVRTC");
    };
    let program = Program { source: Source::Cast, format: Format::F32 };
    let error = compiler.compile(program).unwrap_err().to_string();
    assert!(error.starts_with("cast-f32 does not compile for sm_0: "), "{error}");
}

#[test]
fn nccl_itself_has_all_functions_and_makes_ids() {
    match UniqueId::new() {
        Ok(id) => assert_ne!(UniqueId::new().unwrap(), id, "two communicators of one id"),
        Err(DeviceError::NoLibrary { .. }) => eprintln!("skipped: there is no NCCL"),
        Err(error) => panic!("{error}"),
    }
}
