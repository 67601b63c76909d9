// An output-stationary array, written from docs/timing.md (5): activations move right, weights move down, every PE keeps
// its accumulator.

module output_stationary_pe #(
    parameter WEIGHT_BITS = 8,
    parameter ACTIVATION_BITS = 8,
    parameter ACC_BITS = 32,
    parameter START_BITS = 64,
    parameter SATURATE = 0,
    parameter LATENCY = 1,
    parameter SHIFT = 0,
    parameter RULE = 0
) (
    input                                   clock,
    input                                   load,      // the start value into the accumulator, bubbles elsewhere
    input                                   drain,     // the accumulator of the PE above into this one
    input      signed [START_BITS-1:0]      start,
    input      signed [WEIGHT_BITS-1:0]     weight_in,
    input      signed [ACTIVATION_BITS-1:0] activation_in,
    input      signed [ACC_BITS-1:0]        above,
    output reg signed [WEIGHT_BITS-1:0]     weight,
    output reg signed [ACTIVATION_BITS-1:0] activation,
    output reg signed [ACC_BITS-1:0]        accumulator,
    output reg                              overflow   // of the value that the last edge brought in
);
    wire signed [WEIGHT_BITS+ACTIVATION_BITS-1:0] product;
    wire signed [ACC_BITS-1:0] started, summed;
    wire start_overflow, sum_overflow;

    multiplier #(
        .WEIGHT_BITS(WEIGHT_BITS), .ACTIVATION_BITS(ACTIVATION_BITS), .LATENCY(LATENCY), .SHIFT(SHIFT), .RULE(RULE)
    ) multiply (
        .clock(clock), .clear(load), .weight(weight_in), .activation(activation_in), .product(product)
    );
    bring_in #(.VALUE_BITS(START_BITS), .BITS(ACC_BITS), .SATURATE(SATURATE)) bring_start (
        .value(start), .held(started), .overflow(start_overflow)
    );
    add_into #(.BITS(ACC_BITS), .TERM_BITS(WEIGHT_BITS + ACTIVATION_BITS), .SATURATE(SATURATE)) accumulate (
        .register(accumulator), .term(product), .held(summed), .overflow(sum_overflow)
    );

    always @(posedge clock) begin
        weight <= load ? {WEIGHT_BITS{1'b0}} : weight_in;
        activation <= load ? {ACTIVATION_BITS{1'b0}} : activation_in;
        accumulator <= load ? started : drain ? above : summed;
        overflow <= load ? start_overflow : drain ? 1'b0 : sum_overflow;
    end
endmodule

module output_stationary_array #(
    parameter ROWS = 4,
    parameter COLUMNS = 4,
    parameter WEIGHT_BITS = 8,
    parameter ACTIVATION_BITS = 8,
    parameter ACC_BITS = 32,
    parameter START_BITS = 64,
    parameter SATURATE = 0,
    parameter LATENCY = 1,
    parameter SHIFT = 0,
    parameter RULE = 0
) (
    input                                     clock,
    input                                     load,
    input                                     drain,
    input  [ROWS*COLUMNS*START_BITS-1:0]      starts,
    input  [COLUMNS*WEIGHT_BITS-1:0]          weights_in,      // at the top of each column
    input  [ROWS*ACTIVATION_BITS-1:0]         activations_in,  // at the left of each row
    output [ROWS*COLUMNS*WEIGHT_BITS-1:0]     weights,         // PE (i, j) is at index i * COLUMNS + j
    output [ROWS*COLUMNS*ACTIVATION_BITS-1:0] activations,
    output [ROWS*COLUMNS*ACC_BITS-1:0]        accumulators,
    output [ROWS*COLUMNS-1:0]                 overflows
);
    genvar i, j;
    generate
        for (i = 0; i < ROWS; i = i + 1) begin : row
            for (j = 0; j < COLUMNS; j = j + 1) begin : column
                localparam PE = i * COLUMNS + j;
                wire signed [WEIGHT_BITS-1:0] weight_in;
                wire signed [ACTIVATION_BITS-1:0] activation_in;
                wire signed [ACC_BITS-1:0] above;
                if (i == 0) begin : top
                    assign weight_in = weights_in[j*WEIGHT_BITS +: WEIGHT_BITS];
                    assign above = {ACC_BITS{1'b0}};
                end else begin : inner_row
                    assign weight_in = weights[(PE-COLUMNS)*WEIGHT_BITS +: WEIGHT_BITS];
                    assign above = accumulators[(PE-COLUMNS)*ACC_BITS +: ACC_BITS];
                end
                if (j == 0) begin : left
                    assign activation_in = activations_in[i*ACTIVATION_BITS +: ACTIVATION_BITS];
                end else begin : inner_column
                    assign activation_in = activations[(PE-1)*ACTIVATION_BITS +: ACTIVATION_BITS];
                end
                output_stationary_pe #(
                    .WEIGHT_BITS(WEIGHT_BITS), .ACTIVATION_BITS(ACTIVATION_BITS), .ACC_BITS(ACC_BITS),
                    .START_BITS(START_BITS), .SATURATE(SATURATE), .LATENCY(LATENCY), .SHIFT(SHIFT), .RULE(RULE)
                ) pe (
                    .clock(clock), .load(load), .drain(drain), .start(starts[PE*START_BITS +: START_BITS]),
                    .weight_in(weight_in), .activation_in(activation_in), .above(above),
                    .weight(weights[PE*WEIGHT_BITS +: WEIGHT_BITS]),
                    .activation(activations[PE*ACTIVATION_BITS +: ACTIVATION_BITS]),
                    .accumulator(accumulators[PE*ACC_BITS +: ACC_BITS]),
                    .overflow(overflows[PE])
                );
            end
        end
    endgenerate
endmodule
