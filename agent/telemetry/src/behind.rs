//! Threads that stand back: they write and send what has been told, and who serves requests goes first where there
//! are not processors enough for all.

use std::{io, thread};

/// How far they stand back (`nice`). Beside one thread that does not, such a one still has a quarter of a processor.
const NICE: i32 = 5;

/// Starts one.
///
/// # Errors
/// Where there is no thread to be had.
pub(crate) fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let work = move || {
        // On Linux this is the thread's own. To stand back is always allowed; without it, it is only less polite.
        let _ = rustix::process::nice(NICE);
        work();
    };
    thread::Builder::new().name(name.to_owned()).spawn(work)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use rustix::process::getpriority_process;

    use super::*;

    #[test]
    fn it_stands_back_and_who_has_started_it_does_not() {
        let before = getpriority_process(None).unwrap();
        let (told, heard) = mpsc::channel();
        spawn("behind", move || told.send(getpriority_process(None).unwrap()).unwrap()).unwrap();
        assert_eq!(heard.recv().unwrap(), (before + NICE).min(19));
        assert_eq!(getpriority_process(None).unwrap(), before);
    }
}
