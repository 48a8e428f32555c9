# The server and the command line in an image without anything else.
FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -ldflags=-s -o /pemba ./cmd/pemba

FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build /pemba /pemba
ENTRYPOINT ["/pemba"]
CMD ["serve"]
