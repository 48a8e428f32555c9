//go:build race

package schema

// raceEnabled: the race detector slows everything down, so that no test of
// speed holds under it.
const raceEnabled = true
