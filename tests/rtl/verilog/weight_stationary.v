// A weight-stationary array, written from docs/timing.md (6): weights stay, activations move right, partial sums move down
// and are added to accumulators below the grid.

module weight_stationary_pe #(
    parameter WEIGHT_BITS = 8,
    parameter ACTIVATION_BITS = 8,
    parameter PARTIAL_BITS = 32,
    parameter SATURATE = 0,
    parameter LATENCY = 1,
    parameter SHIFT = 0,
    parameter RULE = 0
) (
    input                                   clock,
    input                                   load,      // weights move down one row, bubbles elsewhere
    input      signed [WEIGHT_BITS-1:0]     weight_in,
    input      signed [ACTIVATION_BITS-1:0] activation_in,
    input      signed [PARTIAL_BITS-1:0]    sum_in,
    output reg signed [WEIGHT_BITS-1:0]     weight,
    output reg signed [ACTIVATION_BITS-1:0] activation,
    output reg signed [PARTIAL_BITS-1:0]    sum,
    output     signed [PARTIAL_BITS-1:0]    sum_next,  // what the next edge brings into the register
    output reg                              overflow   // of the value that the last edge brought in
);
    wire signed [WEIGHT_BITS+ACTIVATION_BITS-1:0] product;
    wire sum_overflow;

    multiplier #(
        .WEIGHT_BITS(WEIGHT_BITS), .ACTIVATION_BITS(ACTIVATION_BITS), .LATENCY(LATENCY), .SHIFT(SHIFT), .RULE(RULE)
    ) multiply (
        .clock(clock), .clear(load), .weight(weight), .activation(activation_in), .product(product)
    );
    add_into #(.BITS(PARTIAL_BITS), .TERM_BITS(WEIGHT_BITS + ACTIVATION_BITS), .SATURATE(SATURATE)) accumulate (
        .register(sum_in), .term(product), .held(sum_next), .overflow(sum_overflow)
    );

    always @(posedge clock) begin
        if (load) weight <= weight_in;
        activation <= load ? {ACTIVATION_BITS{1'b0}} : activation_in;
        sum <= load ? {PARTIAL_BITS{1'b0}} : sum_next;
        overflow <= load ? 1'b0 : sum_overflow;
    end
endmodule

// The accumulators of one column of the grid, one word per position.
module column_accumulator #(
    parameter PARTIAL_BITS = 32,
    parameter ACC_BITS = 32,
    parameter START_BITS = 64,
    parameter DEPTH = 64,
    parameter SATURATE = 0
) (
    input                                clock,
    input                                valid,    // add to the word at the address
    input                                first,    // the first reduction tile: add to the start value instead
    input      [31:0]                    address,
    input      signed [START_BITS-1:0]   start,
    input      signed [PARTIAL_BITS-1:0] sum,
    output     signed [ACC_BITS-1:0]     word,
    output reg [1:0]                     overflows // of the last edge: whether start (1) and sum (0) did not fit
);
    reg signed [ACC_BITS-1:0] words [0:DEPTH-1];
    wire signed [ACC_BITS-1:0] started, next;
    wire start_overflow, sum_overflow;

    assign word = words[address];
    bring_in #(.VALUE_BITS(START_BITS), .BITS(ACC_BITS), .SATURATE(SATURATE)) bring_start (
        .value(start), .held(started), .overflow(start_overflow)
    );
    wire signed [ACC_BITS-1:0] before = first ? started : word;
    add_into #(.BITS(ACC_BITS), .TERM_BITS(PARTIAL_BITS), .SATURATE(SATURATE)) accumulate (
        .register(before), .term(sum), .held(next), .overflow(sum_overflow)
    );

    always @(posedge clock) begin
        if (valid) words[address] <= next;
        overflows <= valid ? {first & start_overflow, sum_overflow} : 2'd0;
    end
endmodule

module weight_stationary_array #(
    parameter ROWS = 4,
    parameter COLUMNS = 4,
    parameter WEIGHT_BITS = 8,
    parameter ACTIVATION_BITS = 8,
    parameter PARTIAL_BITS = 32,
    parameter ACC_BITS = 32,
    parameter START_BITS = 64,
    parameter DEPTH = 64,
    parameter SATURATE = 0,
    parameter LATENCY = 1,
    parameter SHIFT = 0,
    parameter RULE = 0
) (
    input                                     clock,
    input                                     load,
    input  [31:0]                             last_row,        // whose sums go to the accumulators
    input  [COLUMNS-1:0]                      valid,           // a sum of column j leaves the last row
    input                                     first,
    input  [COLUMNS*32-1:0]                   addresses,
    input  [COLUMNS*START_BITS-1:0]           starts,
    input  [COLUMNS*WEIGHT_BITS-1:0]          weights_in,
    input  [ROWS*ACTIVATION_BITS-1:0]         activations_in,
    output [ROWS*COLUMNS*WEIGHT_BITS-1:0]     weights,         // PE (i, j) is at index i * COLUMNS + j
    output [ROWS*COLUMNS*ACTIVATION_BITS-1:0] activations,
    output [ROWS*COLUMNS*PARTIAL_BITS-1:0]    sums,
    output [ROWS*COLUMNS-1:0]                 overflows,
    output [COLUMNS*ACC_BITS-1:0]             words,           // accumulators at the addresses
    output [COLUMNS*2-1:0]                    word_overflows
);
    wire [ROWS*COLUMNS*PARTIAL_BITS-1:0] sums_next;
    genvar i, j;
    generate
        for (i = 0; i < ROWS; i = i + 1) begin : row
            for (j = 0; j < COLUMNS; j = j + 1) begin : column
                localparam PE = i * COLUMNS + j;
                wire signed [WEIGHT_BITS-1:0] weight_in;
                wire signed [ACTIVATION_BITS-1:0] activation_in;
                wire signed [PARTIAL_BITS-1:0] sum_in;
                if (i == 0) begin : top
                    assign weight_in = weights_in[j*WEIGHT_BITS +: WEIGHT_BITS];
                    assign sum_in = {PARTIAL_BITS{1'b0}};
                end else begin : inner_row
                    assign weight_in = weights[(PE-COLUMNS)*WEIGHT_BITS +: WEIGHT_BITS];
                    assign sum_in = sums[(PE-COLUMNS)*PARTIAL_BITS +: PARTIAL_BITS];
                end
                if (j == 0) begin : left
                    assign activation_in = activations_in[i*ACTIVATION_BITS +: ACTIVATION_BITS];
                end else begin : inner_column
                    assign activation_in = activations[(PE-1)*ACTIVATION_BITS +: ACTIVATION_BITS];
                end
                weight_stationary_pe #(
                    .WEIGHT_BITS(WEIGHT_BITS), .ACTIVATION_BITS(ACTIVATION_BITS), .PARTIAL_BITS(PARTIAL_BITS),
                    .SATURATE(SATURATE), .LATENCY(LATENCY), .SHIFT(SHIFT), .RULE(RULE)
                ) pe (
                    .clock(clock), .load(load), .weight_in(weight_in), .activation_in(activation_in), .sum_in(sum_in),
                    .weight(weights[PE*WEIGHT_BITS +: WEIGHT_BITS]),
                    .activation(activations[PE*ACTIVATION_BITS +: ACTIVATION_BITS]),
                    .sum(sums[PE*PARTIAL_BITS +: PARTIAL_BITS]),
                    .sum_next(sums_next[PE*PARTIAL_BITS +: PARTIAL_BITS]),
                    .overflow(overflows[PE])
                );
            end
        end
        for (j = 0; j < COLUMNS; j = j + 1) begin : below
            wire [PARTIAL_BITS-1:0] leaving = sums_next[(last_row*COLUMNS+j)*PARTIAL_BITS +: PARTIAL_BITS];
            column_accumulator #(
                .PARTIAL_BITS(PARTIAL_BITS), .ACC_BITS(ACC_BITS), .START_BITS(START_BITS), .DEPTH(DEPTH),
                .SATURATE(SATURATE)
            ) accumulators (
                .clock(clock), .valid(valid[j]), .first(first), .address(addresses[j*32 +: 32]),
                .start(starts[j*START_BITS +: START_BITS]), .sum(leaving),
                .word(words[j*ACC_BITS +: ACC_BITS]), .overflows(word_overflows[j*2 +: 2])
            );
        end
    endgenerate
endmodule
