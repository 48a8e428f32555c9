//go:build unix

package file

import (
	"os"
	"syscall"
)

// unlock lets another process have the file.
func unlock(f *os.File) { _ = syscall.Flock(int(f.Fd()), syscall.LOCK_UN) }
