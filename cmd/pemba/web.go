package main

import (
	"context"
	"fmt"
	"net"
	"net/url"

	"github.com/pembadb/pemba/server"
)

// web is a node's HTTP listener for clients; nil for a node without one.
type web struct {
	addr   string
	listen net.Listener
	server *server.HTTP
}

// checkHTTP refuses addresses and origins that are none.
func (s *serving) checkHTTP() error {
	for _, origin := range s.origins {
		if u, err := url.Parse(origin); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.Scheme+"://"+u.Host != origin {
			return usagef("--http-cors-origin %q is no web origin; write one such as https://app.example, without a path", origin)
		}
	}
	if s.httpAddr == "" {
		if len(s.origins) > 0 {
			return usagef("--http-cors-origin says whose pages may call --http-addr, and that is not given")
		}
		if s.httpURL != "" {
			return usagef("--http-url %q says where --http-addr is reached, and that is not given", s.httpURL)
		}
		return nil
	}
	if _, _, err := net.SplitHostPort(s.httpAddr); err != nil {
		return usagef("--http-addr %q is no address to listen on; write HOST:PORT, such as 127.0.0.1:8080", s.httpAddr)
	}
	if s.httpURL == "" {
		return nil
	}
	if u, err := url.Parse(s.httpURL); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		return usagef("--http-url %q is no URL of a server; write one such as https://pemba.example", s.httpURL)
	}
	return nil
}

// listenHTTP listens where clients speak HTTP; nil where nobody is to.
func listenHTTP(s *serving, on *server.Server) (*web, error) {
	if s.httpAddr == "" {
		return nil, nil
	}
	l, err := listenTo("HTTP", "http-addr", s.httpAddr)
	if err != nil {
		return nil, err
	}
	return &web{addr: l.Addr().String(), listen: l, server: on.HTTP(s.httpURL)}, nil
}

// serve answers until drain. What ends it before is told to failed.
func (w *web) serve(failed chan<- error) {
	if w == nil {
		return
	}
	go func() {
		if err := w.server.Serve(w.listen); err != nil {
			select {
			case failed <- fmt.Errorf("serve HTTP on %s: %w", w.addr, err):
			default: // the node is ending already
			}
		}
	}()
}

// drain lets requests under way finish, until ctx ends.
func (w *web) drain(ctx context.Context) {
	if w != nil {
		w.server.GracefulStop(ctx)
	}
}
