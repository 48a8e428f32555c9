package loadtest

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// usage is what a process has used so far.
type usage struct {
	cpu    time.Duration
	memory int64 // bytes resident now
}

// clockTick is the unit of times in /proc, which Linux fixes for user space
// (proc(5), USER_HZ).
const clockTick = 10 * time.Millisecond

// usageOf reads /proc; on systems without it there is an error.
func usageOf(pid int) (usage, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return usage{}, fmt.Errorf("measure process %d: %w", pid, err)
	}
	// The command's name, in parentheses, may hold anything.
	text := string(stat)
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(fields) < 22 {
		return usage{}, fmt.Errorf("measure process %d: %d fields in its stat", pid, len(fields))
	}
	number := func(i int) int64 { // the i-th field of proc(5)
		n, _ := strconv.ParseInt(fields[i-3], 10, 64)
		return n
	}
	return usage{
		cpu:    time.Duration(number(14)+number(15)) * clockTick,
		memory: number(24) * int64(os.Getpagesize()),
	}, nil
}

// meter adds up what processes use between start and stop.
type meter struct {
	pids   []int
	begin  []usage
	cpu    []time.Duration
	memory []int64 // the most seen at a stop
}

func newMeter(pids []int) *meter {
	return &meter{pids: pids, cpu: make([]time.Duration, len(pids)), memory: make([]int64, len(pids))}
}

func (m *meter) start() error {
	m.begin = m.begin[:0]
	for _, pid := range m.pids {
		u, err := usageOf(pid)
		if err != nil {
			return err
		}
		m.begin = append(m.begin, u)
	}
	return nil
}

func (m *meter) stop() error {
	for i, pid := range m.pids {
		u, err := usageOf(pid)
		if err != nil {
			return err
		}
		m.cpu[i] += u.cpu - m.begin[i].cpu
		m.memory[i] = max(m.memory[i], u.memory)
	}
	return nil
}
