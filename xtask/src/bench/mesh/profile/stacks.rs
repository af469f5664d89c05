//! Folded stacks: a line each, frames from the outermost to the innermost, and how many samples had
//! it. The first frame is the process; a kernel's frame is marked.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};

/// What inferno puts behind the name of a kernel's function.
const KERNEL: &str = "_[k]";
/// What the kernel calls programs that it has loaded.
const BPF: &str = "bpf_prog_";
/// What the kernel gives to processes, to run it themselves; inferno takes it for the kernel.
const VDSO: &str = "__vdso_";
/// Functions of the kernel (x86-64, arm64) that call those of system calls.
const DISPATCHERS: [&str; 4] =
    ["do_syscall_64", "x64_sys_call", "el0_svc_common", "invoke_syscall"];

/// A stack and how many samples had it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stack {
    /// Whose it is.
    pub(super) process: String,
    /// The thread's name, where the process has several that matter; then functions.
    pub(super) frames: Vec<String>,
    pub(super) samples: u64,
}

impl Stack {
    /// The function that ran, without its mark.
    pub(super) fn leaf(&self) -> &str {
        self.frames.last().map_or(self.process.as_str(), |frame| plain(frame))
    }

    /// Whether it ran in the kernel.
    pub(super) fn in_kernel(&self) -> bool {
        self.frames.last().is_some_and(|frame| is_kernel(frame))
    }

    /// What the kernel was entered for: a system call by its name, or an interrupt or a fault by the
    /// function that takes it.
    pub(super) fn entry(&self) -> Option<&str> {
        let mut frames = self
            .frames
            .iter()
            .filter(|frame| is_kernel(frame))
            .map(|frame| plain(frame))
            .peekable();
        let first = *frames.peek()?;
        let mut call = frames.skip_while(|frame| !DISPATCHERS.contains(frame)).peekable();
        if call.peek().is_none() {
            return Some(first);
        }
        let handler = call.find(|frame| !DISPATCHERS.contains(frame)).unwrap_or(first);
        // `__x64_sys_epoll_wait`; where that has only called on, `do_writev` or `ksys_write`.
        let name = handler.split_once("sys_").map(|(_, name)| name);
        Some(name.or_else(|| handler.strip_prefix("do_")).unwrap_or(handler))
    }
}

/// Reads what inferno has folded, with a process id behind each process's name. Those in `known` get the
/// name that is given there, and the thread's name as their first frame.
pub(super) fn read(folded: &str, known: &[(u32, &str)]) -> Result<Vec<Stack>> {
    let stacks = folded.lines().map(|line| {
        stack(line, known).with_context(|| format!("no folded stack with a process id: {line}"))
    });
    stacks.collect()
}

fn stack(line: &str, known: &[(u32, &str)]) -> Option<Stack> {
    let (stack, samples) = line.rsplit_once(' ')?;
    let mut frames = stack.split(';');
    let (thread, process) = frames.next()?.rsplit_once('-')?;
    let process: u32 = process.parse().ok()?;
    let samples = samples.parse().ok()?;
    let frames = frames.map(str::to_owned);
    Some(match known.iter().find(|(id, _)| *id == process) {
        Some((_, name)) => Stack {
            process: (*name).to_owned(),
            frames: [thread.to_owned()].into_iter().chain(frames).collect(),
            samples,
        },
        None => Stack { process: thread.to_owned(), frames: frames.collect(), samples },
    })
}

/// As inferno draws them.
pub(super) fn write(stacks: &[Stack]) -> String {
    let mut text = String::new();
    for Stack { process, frames, samples } in stacks {
        text.push_str(process);
        for frame in frames {
            text.push(';');
            text.push_str(frame);
        }
        // Writing to a String cannot fail.
        let _ = writeln!(text, " {samples}");
    }
    text
}

fn is_kernel(frame: &str) -> bool {
    (frame.ends_with(KERNEL) && !frame.starts_with(VDSO)) || frame.starts_with(BPF)
}

fn plain(frame: &str) -> &str {
    frame.strip_suffix(KERNEL).unwrap_or(frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOLDED: &str = "\
data-0-17;start_thread;tokio::run;entry_SYSCALL_64_[k];do_syscall_64_[k];do_writev_[k];tcp_sendmsg_[k] 3
data-1-17;start_thread;<a::B as c::D<e -> f>>::poll 2
wrk-18;main;bpf_prog_0123_connect4 1
";

    #[test]
    fn stacks_are_read_and_known_processes_named() {
        let stacks = read(FOLDED, &[(17, "client's agent")]).unwrap();
        let said: Vec<_> = stacks
            .iter()
            .map(|stack| (stack.process.as_str(), stack.leaf(), stack.in_kernel(), stack.samples))
            .collect();
        assert_eq!(
            said,
            [
                ("client's agent", "tcp_sendmsg", true, 3),
                ("client's agent", "<a::B as c::D<e -> f>>::poll", false, 2),
                ("wrk", "bpf_prog_0123_connect4", true, 1),
            ]
        );
        assert_eq!(stacks[0].frames[0], "data-0");
        let text = write(&stacks);
        assert!(text.starts_with("client's agent;data-0;start_thread;tokio::run;"), "{text}");
        assert!(text.ends_with("\nwrk;main;bpf_prog_0123_connect4 1\n"), "{text}");
    }

    #[test]
    fn the_kernel_is_entered_for_a_system_call_or_an_interrupt() {
        for (frames, entry) in [
            ("main", None),
            ("main;__vdso_clock_gettime_[k]", None),
            ("main;entry_[k];do_syscall_64_[k];ksys_write_[k]", Some("write")),
            ("main;entry_[k];do_syscall_64_[k];do_writev_[k];tcp_sendmsg_[k]", Some("writev")),
            ("main;do_syscall_64_[k];x64_sys_call_[k];__x64_sys_read_[k]", Some("read")),
            ("main;el0t_64_sync_[k];invoke_syscall_[k];__arm64_sys_read_[k]", Some("read")),
            ("main;entry_[k];do_syscall_64_[k]", Some("entry")),
            (
                "main;asm_sysvec_apic_timer_interrupt_[k];f_[k]",
                Some("asm_sysvec_apic_timer_interrupt"),
            ),
        ] {
            let stacks = read(&format!("a-1;{frames} 1\n"), &[]).unwrap();
            assert_eq!(stacks[0].entry(), entry, "{frames}");
        }
    }

    #[test]
    fn what_is_no_folded_stack_is_an_error_that_shows_it() {
        for line in ["", "wrk-18;main", "wrk;main 1", "wrk-18;main x"] {
            let error = read(&format!("{line}\n"), &[]).unwrap_err().to_string();
            assert!(error.contains(line), "{error}");
        }
    }
}
