//! What a thread is doing: kept in thread-local memory without destructors, so that a signal handler may read it.

use std::{
    cell::Cell,
    fmt::Display,
    ptr,
    sync::{
        Arc,
        atomic::{Ordering, compiler_fence},
    },
};

use crate::Class;

/// A task's name and the camera it works for, which crash reports and stalls carry.
#[derive(Debug, Clone)]
pub struct TaskName {
    text: String,
    camera: Camera,
}

#[derive(Debug, Clone)]
enum Camera {
    /// That of the task which spawns it, if it has one.
    Inherited,
    Named(Arc<str>),
    /// It works for many.
    None,
}

impl TaskName {
    /// A task of one camera: `front-door writer`.
    pub fn of_camera(camera: &impl Display, what: &str) -> Self {
        let camera = camera.to_string();
        Self {
            text: format!("{camera} {what}"),
            camera: Camera::Named(camera.into()),
        }
    }

    /// A task that works for many cameras though one of them happens to start it.
    pub fn of_no_camera(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            camera: Camera::None,
        }
    }

    pub(crate) fn into_doing(self, class: Class) -> Doing {
        Doing {
            task: self.text,
            camera: match self.camera {
                Camera::Inherited => inherited_camera(),
                Camera::Named(camera) => Some(camera),
                Camera::None => None,
            },
            class: Some(class),
        }
    }
}

impl From<String> for TaskName {
    fn from(text: String) -> Self {
        Self {
            text,
            camera: Camera::Inherited,
        }
    }
}

impl From<&str> for TaskName {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

/// What runs. Nobody changes it while it does.
#[derive(Debug, Clone)]
pub(crate) struct Doing {
    pub task: String,
    pub camera: Option<Arc<str>>,
    pub class: Option<Class>,
}

/// What the thread is: `shard-0`, `control`. Longer names are cut.
#[derive(Clone, Copy)]
struct ThreadName {
    bytes: [u8; 16],
    len: u8,
}

thread_local! {
    /// A single word, so that a handler never sees half of a change.
    static NOW: Cell<*const Doing> = const { Cell::new(ptr::null()) };
    static SHARD: Cell<ThreadName> = const { Cell::new(ThreadName { bytes: [0; 16], len: 0 }) };
}

/// Puts the thread back to what it did before.
pub(crate) struct Entered(*const Doing);

/// From here on, until the result is dropped, this thread does that. `doing` must stay where it is for as long.
pub(crate) fn enter(doing: &Doing) -> Entered {
    let before = NOW.replace(ptr::from_ref(doing));
    compiler_fence(Ordering::SeqCst);
    Entered(before)
}

impl Drop for Entered {
    fn drop(&mut self) {
        compiler_fence(Ordering::SeqCst);
        NOW.set(self.0);
    }
}

/// This thread carries that shard from here on.
pub(crate) fn on_thread(shard: &str) {
    let mut name = ThreadName { bytes: [0; 16], len: 0 };
    let len = shard.len().min(name.bytes.len());
    name.bytes[..len].copy_from_slice(&shard.as_bytes()[..len]);
    name.len = len as u8;
    SHARD.set(name);
}

/// What the current thread is doing, as far as it is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Current<'a> {
    pub shard: Option<&'a str>,
    pub task: Option<&'a str>,
    pub camera: Option<&'a str>,
    pub class: Option<&'a str>,
}

/// Neither locks nor allocates: safe in a signal handler.
pub(super) fn with_current<T>(look: impl FnOnce(Current<'_>) -> T) -> T {
    let shard = SHARD.get();
    let shard = std::str::from_utf8(&shard.bytes[..usize::from(shard.len)]).unwrap_or("");
    let doing = NOW.get();
    // SAFETY: `enter` points to a value that it borrows and whose guard puts the pointer back before that borrow can end; nobody changes the
    // value meanwhile, and only this thread reads its own pointer.
    let doing = unsafe { doing.as_ref() };
    look(Current {
        shard: Some(shard).filter(|s| !s.is_empty()),
        task: doing.map(|d| d.task.as_str()),
        camera: doing.and_then(|d| d.camera.as_deref()),
        class: doing.and_then(|d| d.class).map(Class::name),
    })
}

/// The camera that this thread works for right now.
fn inherited_camera() -> Option<Arc<str>> {
    // SAFETY: as in `with_current`.
    unsafe { NOW.get().as_ref() }.and_then(|d| d.camera.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_knows_what_it_does_and_tasks_take_the_camera_over() {
        std::thread::spawn(|| {
            assert!(with_current(|c| c == Current::default()));
            on_thread("shard-7 and a name that is too long");
            let outer = TaskName::of_camera(&"door", "writer").into_doing(Class::Recording);
            let entered = enter(&outer);
            let inner = TaskName::from("footage read").into_doing(Class::Playback);
            let shared = TaskName::of_no_camera("disk flush").into_doing(Class::Recording);
            assert_eq!(
                (inner.camera.as_deref(), shared.camera.as_deref()),
                (Some("door"), None)
            );
            {
                let _inner = enter(&inner);
                with_current(|c| assert_eq!((c.task, c.class), (Some("footage read"), Some("playback"))));
            }
            with_current(|c| assert_eq!((c.task, c.shard), (Some("door writer"), Some("shard-7 and a na"))));
            drop(entered);
            with_current(|c| assert_eq!(c.task, None));
        })
        .join()
        .unwrap();
    }
}
