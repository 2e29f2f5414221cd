package main

import (
	"context"

	"github.com/tikv/client-go/v2/tikv"
)

// Five seconds of patience.
func kvBackoffer(ctx context.Context) *tikv.Backoffer {
	return tikv.NewBackofferWithVars(ctx, 5000, nil)
}
