package main

import (
	"context"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// release is set by the linker: -ldflags "-X main.release=v1.2.3".
var release string

// version returns the release, or what the Go toolchain recorded about the source.
func version() string {
	if release != "" {
		return release
	}
	info, ok := debug.ReadBuildInfo()
	if ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "development"
}

// commit returns the commit that the binary was built from, if it is known.
func commit() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	var revision string
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			revision = short(s.Value)
		case s.Key == "vcs.modified" && s.Value == "true":
			revision += ", modified"
		}
	}
	return revision
}

func (a *app) versionCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version of this command",
		Args:  takes(),
	}
	cmd.RunE = a.do(func(context.Context, []string) error {
		platform := runtime.GOOS + "/" + runtime.GOARCH
		if a.json() {
			return document(a.out, struct {
				Version  string `json:"version"`
				Commit   string `json:"commit,omitempty"`
				Go       string `json:"go"`
				Platform string `json:"platform"`
			}{version(), commit(), runtime.Version(), platform})
		}
		text := "pemba " + version()
		if c := commit(); c != "" {
			text += " (" + c + ")"
		}
		a.printf("%s, %s, %s\n", text, runtime.Version(), platform)
		return nil
	})
	return cmd
}
